//go:build tools

// Package tools names what is built here.
package tools

import _ "go.etcd.io/etcd/server/v3"
