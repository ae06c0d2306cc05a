//go:build tools

// Package tools names what is built here: the controller of cert-manager, which tests of Knative Eventing need. Later versions
// keep it in a module that the proxy does not serve.
package tools

import _ "github.com/cert-manager/cert-manager/cmd/controller"
