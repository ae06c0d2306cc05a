//go:build tools

// Package tools names what is built here.
package tools

import _ "knative.dev/client/cmd/kn"
