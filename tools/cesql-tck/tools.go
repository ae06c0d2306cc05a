//go:build tools

// Package tools names what is fetched here: the module that keeps the test kit of CESQL.
package tools

import _ "github.com/cloudevents/sdk-go/sql/v2"
