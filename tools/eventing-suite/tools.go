//go:build tools

// Package tools names what is built here: Knative Eventing's own end-to-end suite and the programs of its test images.
package tools

import (
	_ "knative.dev/eventing/cmd/heartbeats"
	_ "knative.dev/eventing/test/rekt"
	_ "knative.dev/eventing/test/test_images/print"
	_ "knative.dev/reconciler-test/cmd/eventshub"
)
