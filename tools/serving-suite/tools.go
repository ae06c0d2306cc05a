//go:build tools

// Package tools names what is built here: Knative's own conformance and end-to-end suites and their test images.
package tools

import (
	_ "knative.dev/serving/test/conformance/api/v1"
	_ "knative.dev/serving/test/conformance/api/v1beta1"
	_ "knative.dev/serving/test/conformance/runtime"
	_ "knative.dev/serving/test/e2e"
	_ "knative.dev/serving/test/e2e/domainmapping"
	_ "knative.dev/serving/test/e2e/gc"
	_ "knative.dev/serving/test/e2e/initcontainers"
	_ "knative.dev/serving/test/e2e/initscale"
	_ "knative.dev/serving/test/e2e/multicontainerprobing"
	_ "knative.dev/serving/test/e2e/pvc"
	_ "knative.dev/serving/test/e2e/securedefaults"
	_ "knative.dev/serving/test/e2e/tagheader"
	_ "knative.dev/serving/test/test_images/autoscale"
	_ "knative.dev/serving/test/test_images/failing"
	_ "knative.dev/serving/test/test_images/grpc-ping"
	_ "knative.dev/serving/test/test_images/hellohttp2"
	_ "knative.dev/serving/test/test_images/hellovolume"
	_ "knative.dev/serving/test/test_images/helloworld"
	_ "knative.dev/serving/test/test_images/httpproxy"
	_ "knative.dev/serving/test/test_images/pizzaplanetv1"
	_ "knative.dev/serving/test/test_images/pizzaplanetv2"
	_ "knative.dev/serving/test/test_images/readiness"
	_ "knative.dev/serving/test/test_images/runtime"
	_ "knative.dev/serving/test/test_images/singlethreaded"
	_ "knative.dev/serving/test/test_images/slowstart"
	_ "knative.dev/serving/test/test_images/timeout"
	_ "knative.dev/serving/test/test_images/volumes"
	_ "knative.dev/serving/test/test_images/wsserver"
	_ "knative.dev/serving/test/test_images/configmimic"
	_ "knative.dev/serving/test/test_images/multicontainer/servingcontainer"
	_ "knative.dev/serving/test/test_images/multicontainer/sidecarcontainer"
)
