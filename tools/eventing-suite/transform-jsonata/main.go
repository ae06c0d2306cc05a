// Transforms events by JSONata as upstream's image does, which is in a registry that not every machine reaches: an event comes
// as structured JSON, and what the expression makes of it is the answer, or goes to K_SINK, whose answer it is then.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/blues/jsonata-go"
	"github.com/cloudevents/sdk-go/v2/binding"
	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

var (
	transform = expression("JSONATA_TRANSFORM_FILE_NAME")
	reply     = expression("JSONATA_RESPONSE_TRANSFORM_FILE_NAME")
	sink      = os.Getenv("K_SINK")
	discard   = os.Getenv("JSONATA_DISCARD_RESPONSE_BODY") == "true"
)

func main() {
	if transform == nil {
		log.Fatal("JSONATA_TRANSFORM_FILE_NAME names no file")
	}
	well := func(http.ResponseWriter, *http.Request) {}
	http.HandleFunc("GET /healthz", well)
	http.HandleFunc("GET /readyz", well)
	http.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		if err := answer(w, r); err != nil {
			w.Header().Set("Reason", err.Error())
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	trust(os.Getenv("NODE_EXTRA_CA_CERTS"))
	certificate, key := os.Getenv("HTTPS_CERT_PATH"), os.Getenv("HTTPS_KEY_PATH")
	if certificate != "" {
		go func() { log.Fatal(http.ListenAndServeTLS(":"+os.Getenv("HTTPS_PORT"), certificate, key, nil)) }()
	}
	if os.Getenv("DISABLE_HTTP_SERVER") == "true" {
		select {}
	}
	log.Fatal(http.ListenAndServe(":"+os.Getenv("HTTP_PORT"), nil))
}

// Trusts the certificates of a file, if it is there, beside those of the system.
func trust(name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		return
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(text)
	http.DefaultTransport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
}

// The expression in the file that a variable names, if it names one.
func expression(variable string) *jsonata.Expr {
	name := os.Getenv(variable)
	if name == "" {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	return jsonata.MustCompile(string(text))
}

func answer(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	made, err := evaluate(transform, r.Header, body)
	if err != nil {
		return err
	}
	if sink == "" {
		return write(w, http.StatusOK, made)
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, sink, bytes.NewReader(made))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType(made))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case discard:
		w.WriteHeader(response.StatusCode)
		return nil
	case reply != nil:
		if made, err = evaluate(reply, response.Header, body); err != nil {
			return err
		}
		return write(w, response.StatusCode, made)
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, err = w.Write(body)
	return err
}

// What an expression makes of an event or, where a message is none, of its body.
func evaluate(by *jsonata.Expr, headers http.Header, body []byte) ([]byte, error) {
	var input any = string(body)
	if event := read(headers, body); event != nil {
		var err error
		if body, err = json.Marshal(event); err != nil {
			return nil, err
		}
	}
	var value any
	if json.Unmarshal(body, &value) == nil {
		input = value
	}
	made, err := by.Eval(input)
	if err != nil {
		return nil, err
	}
	return json.Marshal(made)
}

// The event of a message; nothing where it is none.
func read(headers http.Header, body []byte) *cloudevents.Event {
	message := cehttp.NewMessage(headers, io.NopCloser(bytes.NewReader(body)))
	if message.ReadEncoding() == binding.EncodingUnknown {
		return nil
	}
	event, err := binding.ToEvent(context.Background(), message)
	if err != nil || event.Validate() != nil {
		return nil
	}
	return event
}

func write(w http.ResponseWriter, status int, made []byte) error {
	w.Header().Set("Content-Type", contentType(made))
	w.WriteHeader(status)
	_, err := w.Write(made)
	return err
}

func contentType(made []byte) string {
	var fields struct{ ContentType, SpecVersion string }
	switch err := json.Unmarshal(made, &fields); {
	case err == nil && fields.ContentType != "":
		return fields.ContentType
	case err == nil && fields.SpecVersion != "":
		return "application/cloudevents+json"
	}
	return "application/json"
}
