//go:build tools

// Package tools names what is built here: gRPC's own interoperability client and server.
package tools

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
