//go:build tools

// Package tools names what is built here: Knative Eventing's own end-to-end and conformance suites and the programs of their
// test images.
package tools

import (
	_ "knative.dev/eventing/cmd/heartbeats"
	_ "knative.dev/eventing/test/conformance"
	_ "knative.dev/eventing/test/rekt"
	_ "knative.dev/eventing/test/test_images/event-sender"
	_ "knative.dev/eventing/test/test_images/print"
	_ "knative.dev/eventing/test/test_images/recordevents"
	_ "knative.dev/eventing/test/test_images/request-sender"
	_ "knative.dev/reconciler-test/cmd/eventshub"
)
