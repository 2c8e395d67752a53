// Command example shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its
// result, cancels another job, and reads the details of errors. It prints a line of JSON for each step.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	atlas "atlas.example/client/gen/atlas/v1"
)

// A call that the server was not there for is repeated by the channel. With a request id, that is safe for a submit too.
const retries = `{"methodConfig": [{
	"name": [{"service": "atlas.v1.JobService"}],
	"retryPolicy": {
		"maxAttempts": 4,
		"initialBackoff": "0.1s",
		"maxBackoff": "2s",
		"backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

const (
	callTimeout = 30 * time.Second
	firstPause  = 100 * time.Millisecond
	longestWait = 2 * time.Second
)

type client struct {
	jobs atlas.JobServiceClient
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: example HOST:PORT")
	}
	conn, err := grpc.NewClient(
		os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(retries),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	example := client{atlas.NewJobServiceClient(conn)}
	ctx := context.Background()
	for _, step := range []func(context.Context) error{example.success, example.cancel, example.refusals} {
		if err := step(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

// success submits a job twice, which makes one, and follows it to its result.
func (c client) success(ctx context.Context) error {
	request := job("countdown", map[string]any{"steps": 8, "delay": 0.1})
	first, err := c.submit(ctx, request)
	if err != nil {
		return err
	}
	id := first.Job.Id
	say("submit", fields{"job": id, "created": !first.Deduplicated})
	again, err := c.submit(ctx, request)
	if err != nil {
		return err
	}
	say("submit_again", fields{"job": again.Job.Id, "created": !again.Deduplicated})

	watch := follower{jobs: c.jobs, id: id, cutAfterFirst: true}
	if err := watch.run(ctx); err != nil {
		return err
	}
	say("watch", fields{"states": watch.states, "versions": watch.versions, "resumed": watch.resumed})

	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := c.jobs.GetJob(ctx, &atlas.GetJobRequest{Id: id})
	if err != nil {
		return err
	}
	say("result", fields{"result": got.Job.GetResult().AsInterface()})
	return nil
}

// cancel stops a job and waits until it has stopped.
func (c client) cancel(ctx context.Context) error {
	submitted, err := c.submit(ctx, job("sleep", map[string]any{"seconds": 60}))
	if err != nil {
		return err
	}
	id := submitted.Job.Id
	call, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	if _, err := c.jobs.CancelJob(call, &atlas.CancelJobRequest{Id: id, Reason: "an example"}); err != nil {
		return err
	}
	watch := follower{jobs: c.jobs, id: id}
	if err := watch.run(ctx); err != nil {
		return err
	}
	// What went wrong with a job is a status like that of a call.
	info, _ := details(status.FromProto(watch.job.Error))
	say("cancel", fields{"job": id, "state": watch.job.State.String(), "reason": info.GetReason()})
	return nil
}

// refusals makes two mistakes and reads what the server says about them.
func (c client) refusals(ctx context.Context) error {
	_, err := c.submit(ctx, job("countdown", map[string]any{"steps": "many"}))
	refusal := status.Convert(err)
	info, field := details(refusal)
	say("error", fields{"code": name(refusal), "reason": info.GetReason(), "field": field})

	call, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	_, err = c.jobs.GetJob(call, &atlas.GetJobRequest{Id: "no-such-job"})
	refusal = status.Convert(err)
	info, _ = details(refusal)
	say("not_found", fields{"code": name(refusal), "reason": info.GetReason()})
	return nil
}

func job(kind string, payload map[string]any) *atlas.SubmitJobRequest {
	input, err := structpb.NewStruct(payload)
	if err != nil {
		log.Fatal(err)
	}
	return &atlas.SubmitJobRequest{
		Type:      kind,
		Input:     &atlas.SubmitJobRequest_Payload{Payload: input},
		RequestId: rand.Text(),
	}
}

func (c client) submit(ctx context.Context, request *atlas.SubmitJobRequest) (*atlas.SubmitJobResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.jobs.SubmitJob(ctx, request)
}

// follower follows one job to its end, over as many streams as it takes.
type follower struct {
	jobs          atlas.JobServiceClient
	id            string
	cutAfterFirst bool // break off the first stream on purpose, to show that the next goes on exactly

	token    string
	job      *atlas.Job
	states   []string
	versions []int64
	resumed  bool
}

func (f *follower) run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		wasCut := f.cutAfterFirst
		err := f.stream(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case wasCut && status.Code(err) == codes.Canceled:
		case status.Code(err) == codes.Unavailable:
			time.Sleep(pause)
		default:
			return err
		}
		f.resumed = f.token != ""
	}
}

// stream reads one stream until it ends; io.EOF says that the job has, too.
func (f *follower) stream(ctx context.Context) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	stream, err := f.jobs.WatchJob(ctx, &atlas.WatchJobRequest{Id: f.id, ResumeToken: f.token})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		f.token = message.ResumeToken
		if message.Job != nil {
			f.job = message.Job
		}
		for _, step := range message.Transitions {
			f.states = append(f.states, step.State.String())
			f.versions = append(f.versions, step.Version)
		}
		if f.cutAfterFirst {
			f.cutAfterFirst = false
			cut()
		}
	}
}

// details are the ErrorInfo of a status, and the first field that a BadRequest names.
func details(refusal *status.Status) (info *errdetails.ErrorInfo, field string) {
	for _, detail := range refusal.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.BadRequest:
			field = detail.FieldViolations[0].Field
		}
	}
	return info, field
}

// name is the code as the gRPC documentation spells it.
func name(refusal *status.Status) string {
	return code.Code(refusal.Code()).String()
}

type fields map[string]any

func say(step string, line fields) {
	line["step"] = step
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}
