//go:build tools

// Package tools names what is built here: kn, its own end-to-end suite, and the programs of that suite's images.
package tools

import (
	_ "knative.dev/client/cmd/kn"
	_ "knative.dev/client/test/e2e"
	_ "knative.dev/client/test/test_images/helloworld"
	_ "knative.dev/serving/test/test_images/grpc-ping"
	_ "knative.dev/serving/test/test_images/multicontainer/servingcontainer"
	_ "knative.dev/serving/test/test_images/multicontainer/sidecarcontainer"
)
