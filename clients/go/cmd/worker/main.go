// Command worker executes the job types of the conformance suite of workers (docs/workers.md). What is about these
// types is in this file; the rest is in worker.go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	atlas "atlas.example/client/gen/atlas/v1"
)

const (
	slots = 16
	// What jobs have to end at SIGTERM.
	drain = 2 * time.Second
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: worker HOST:PORT")
	}
	conn, err := grpc.NewClient(
		os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, MaxDelay: longestPause},
			MinConnectTimeout: welcomeTime,
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	worker := New(atlas.NewWorkerServiceClient(conn), "go", slots, map[string]Handler{
		"check.echo":  echo,
		"check.steps": steps,
		"check.fail":  fail,
		"check.tick":  tick,
	})
	if err := worker.Run(stop, drain); err != nil {
		log.Fatal(err)
	}
}

func echo(_ context.Context, job *Job) (any, error) {
	var payload struct{ Value json.RawMessage }
	err := json.Unmarshal([]byte(job.GetPayloadJson()), &payload)
	return payload.Value, err
}

func steps(_ context.Context, job *Job) (any, error) {
	var payload struct{ Steps int }
	if err := json.Unmarshal([]byte(job.GetPayloadJson()), &payload); err != nil {
		return nil, err
	}
	for step := 1; step <= payload.Steps; step++ {
		text := fmt.Sprintf("step %d", step)
		job.Tell(
			&atlas.Progress{Current: float64(step), Total: float64(payload.Steps), Message: text},
			&atlas.LogEntry{Severity: atlas.LogEntry_INFO, Message: text},
		)
	}
	return payload.Steps, nil
}

func fail(_ context.Context, job *Job) (any, error) {
	var failure Failure
	if err := json.Unmarshal([]byte(job.GetPayloadJson()), &failure); err != nil {
		return nil, err
	}
	return nil, &failure
}

func tick(ctx context.Context, job *Job) (any, error) {
	var payload struct {
		Seconds float64
		File    string
	}
	if err := json.Unmarshal([]byte(job.GetPayloadJson()), &payload); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(payload.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	end := time.After(time.Duration(payload.Seconds * float64(time.Second)))
	ticks := time.NewTicker(100 * time.Millisecond)
	defer ticks.Stop()
	fmt.Fprintln(file, "begin")
	for {
		fmt.Fprintln(file, "tick")
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-end:
			fmt.Fprintln(file, "end")
			return nil, nil
		case <-ticks.C:
		}
	}
}
