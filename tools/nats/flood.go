// nats-flood publishes events to a JetStream server for a while and prints how long it waited for acknowledgements:
// {"seconds": how long it took, "micros": [until all of a batch were acknowledged, ...]}.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How long the next acknowledgement may take.
const patience = 2 * time.Minute

const (
	stream  = "bench"
	subject = "bench.events"
)

func main() {
	server := flag.String("server", nats.DefaultURL, "where the server is")
	senders := flag.Int("senders", 1, "how many publish, each over a connection of its own")
	batch := flag.Int("batch", 1, "events that each publishes before it waits for their acknowledgements")
	size := flag.Int("size", 1024, "bytes of an event's data")
	milliseconds := flag.Int("milliseconds", 1000, "how long they publish")
	flag.Parse()
	length := time.Duration(*milliseconds) * time.Millisecond
	if err := flood(*server, *senders, *batch, *size, length); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func flood(server string, senders, batch, size int, length time.Duration) error {
	connections := make([]jetstream.JetStream, senders)
	for at := range connections {
		connection, err := nats.Connect(server)
		if err != nil {
			return err
		}
		defer connection.Close()
		if connections[at], err = jetstream.New(connection); err != nil {
			return err
		}
	}
	if err := empty(connections[0]); err != nil {
		return err
	}
	type outcome struct {
		micros []float64
		err    error
	}
	outcomes := make(chan outcome, senders)
	begun := time.Now()
	data := []byte(strings.Repeat("x", size))
	for _, connection := range connections {
		go func() {
			micros, err := send(connection, data, batch, begun.Add(length))
			outcomes <- outcome{micros, err}
		}()
	}
	all := []float64{}
	for range connections {
		of := <-outcomes
		if of.err != nil {
			return of.err
		}
		all = append(all, of.micros...)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"seconds": time.Since(begun).Seconds(), "micros": all})
}

// empty makes the stream, or takes everything out of the one there is.
func empty(on jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := on.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:     stream,
		Subjects: []string{subject},
		Storage:  jetstream.FileStorage,
	})
	if err != nil {
		return err
	}
	return made.Purge(ctx)
}

// send publishes until the end and says how long it waited each time.
func send(on jetstream.JetStream, data []byte, batch int, end time.Time) ([]float64, error) {
	micros := []float64{}
	for time.Now().Before(end) {
		asked := time.Now()
		if err := publish(on, data, batch); err != nil {
			return nil, err
		}
		micros = append(micros, float64(time.Since(asked).Nanoseconds())/1e3)
	}
	return micros, nil
}

// publish sends a batch and waits until all of it is acknowledged.
func publish(on jetstream.JetStream, data []byte, batch int) error {
	if batch == 1 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := on.PublishMsg(ctx, event(data))
		return err
	}
	futures := make([]jetstream.PubAckFuture, batch)
	for at := range futures {
		future, err := on.PublishMsgAsync(event(data))
		if err != nil {
			return err
		}
		futures[at] = future
	}
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return err
		case <-time.After(patience):
			return fmt.Errorf("no acknowledgement within %s", patience)
		}
	}
	return nil
}

// event is a CloudEvent in binary mode, as CloudEvents' binding for NATS has it.
func event(data []byte) *nats.Msg {
	message := nats.NewMsg(subject)
	message.Data = data
	message.Header.Set("ce-specversion", "1.0")
	message.Header.Set("ce-id", "1")
	message.Header.Set("ce-source", "/bench")
	message.Header.Set("ce-type", "com.example.bench")
	message.Header.Set("content-type", "text/plain")
	return message
}
