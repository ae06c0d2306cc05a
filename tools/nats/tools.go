//go:build tools

// Package tools names what is built here beside nats-flood: the server.
package main

import _ "github.com/nats-io/nats-server/v2"
