package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	atlas "atlas.example/client/gen/atlas/v1"
)

const (
	// Between two tries to connect: a fraction of any lease, or a cut would cost jobs.
	firstPause   = 100 * time.Millisecond
	longestPause = 500 * time.Millisecond
	// What a server has for its welcome.
	welcomeTime = 2 * time.Second
	goodbyeTime = 5 * time.Second
)

// Why a job is stopped: the cause of its context.
var (
	errCancelled = errors.New("the job is cancelled")
	errLost      = errors.New("the job is no longer this worker's")
	errReleased  = errors.New("the worker ends")
	errTimedOut  = errors.New("the attempt took too long")
)

// A Handler executes a job, and returns what becomes JSON, or an error: a *Failure, or the cause of its context. It must
// return soon after its context ends.
type Handler func(context.Context, *Job) (any, error)

// Failure is how a handler says what went wrong.
type Failure struct {
	Reason, Message string
	Final           bool
}

func (f *Failure) Error() string { return f.Message }

// Job is an assignment in hand.
type Job struct {
	*atlas.Assignment
	worker *Worker
	stop   context.CancelCauseFunc
}

// Worker keeps a session over as many streams as it takes. All that changes is guarded by its mutex.
type Worker struct {
	client   atlas.WorkerServiceClient
	name     string
	slots    int
	handlers map[string]Handler
	started  time.Time
	finished chan struct{} // closed when all jobs in hand are done with after the signal to stop

	mu       sync.Mutex
	session  string
	lease    time.Duration
	kept     time.Duration // the time since `started` at which the last message was sent that was answered
	jobs     map[string]*Job
	lastID   int64
	pending  map[int64]*atlas.WorkRequest // updates and reports that were not answered
	received int64
	draining bool
	out      chan *atlas.WorkRequest // of the current stream; nil when there is none
}

func New(client atlas.WorkerServiceClient, name string, slots int, handlers map[string]Handler) *Worker {
	return &Worker{
		client: client, name: name, slots: slots, handlers: handlers, started: time.Now(), finished: make(chan struct{}),
		jobs: map[string]*Job{}, pending: map[int64]*atlas.WorkRequest{},
	}
}

// Run works until `stop` ends. Then jobs have so long to end, and go back after it.
func (w *Worker) Run(stop context.Context, drain time.Duration) error {
	go w.guard()
	go func() {
		<-stop.Done()
		w.drain(drain)
		close(w.finished)
	}()
	for {
		err := w.stream()
		if err == nil {
			return nil
		}
		if status.Code(err) == codes.InvalidArgument {
			return err
		}
		log.Printf("the stream broke, and is opened again: %v", err)
		select {
		case <-w.finished:
			return nil
		case <-time.After(firstPause):
		}
	}
}

// stream serves one stream. It returns nil after a goodbye.
func (w *Worker) stream() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deaf := time.AfterFunc(welcomeTime, cancel)
	call, err := w.client.Work(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	sent := time.Since(w.started)
	if err := call.Send(w.hello()); err != nil {
		_, err = call.Recv()
		return err
	}
	first, err := call.Recv()
	if err != nil {
		return err
	}
	out := make(chan *atlas.WorkRequest, 10_000)
	w.welcomed(first.GetWelcome(), sent, out)
	defer w.disconnected()
	go w.write(ctx, call, out)
	for {
		deaf.Reset(w.lease / 2) // there should be an answer to a beat by then
		message, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.heard(message)
	}
}

func (w *Worker) write(ctx context.Context, call atlas.WorkerService_WorkClient, out <-chan *atlas.WorkRequest) {
	beats := time.NewTicker(w.lease / 5)
	defer beats.Stop()
	finished := w.finished
	for {
		var message *atlas.WorkRequest
		select {
		case <-ctx.Done():
			return
		case message = <-out:
		case <-beats.C:
			message = &atlas.WorkRequest{Message: &atlas.WorkRequest_Beat{Beat: int64(time.Since(w.started))}}
		case <-finished:
			finished = nil
			message = &atlas.WorkRequest{Message: &atlas.WorkRequest_Goodbye{Goodbye: &atlas.WorkerGoodbye{}}}
		}
		if call.Send(message) != nil {
			return // the reader learns why
		}
	}
}

func (w *Worker) hello() *atlas.WorkRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	hello := &atlas.WorkerHello{Worker: w.name, Session: w.session, Slots: int32(w.slots), JsonText: true}
	for name := range w.handlers {
		hello.Types = append(hello.Types, &atlas.JobType{Name: name})
	}
	for token, job := range w.jobs {
		hello.Holding = append(hello.Holding, &atlas.HeldJob{Id: job.Id, Token: token})
	}
	return &atlas.WorkRequest{Message: &atlas.WorkRequest_Hello{Hello: hello}}
}

func (w *Worker) welcomed(welcome *atlas.WorkerWelcome, sent time.Duration, out chan *atlas.WorkRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !welcome.GetResumed() {
		w.loseAll()
	}
	w.session, w.lease = welcome.GetSession(), welcome.GetLeaseDuration().AsDuration()
	w.kept, w.received, w.out = sent, 0, out
	for _, id := range slices.Sorted(maps.Keys(w.pending)) {
		w.say(w.pending[id])
	}
	w.ready()
}

func (w *Worker) disconnected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = nil
}

func (w *Worker) heard(message *atlas.WorkResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch said := message.Message.(type) {
	case *atlas.WorkResponse_Beat:
		w.kept = max(w.kept, time.Duration(said.Beat))
	case *atlas.WorkResponse_Assignments:
		w.received = said.Assignments.Batch
		w.say(&atlas.WorkRequest{Message: &atlas.WorkRequest_Received{Received: w.received}})
		for _, assignment := range said.Assignments.Jobs {
			w.start(assignment)
		}
		w.ready()
	case *atlas.WorkResponse_Stops:
		for _, stop := range said.Stops.Stops {
			if job := w.jobs[stop.Token]; job != nil && stop.Reason == atlas.JobStop_CANCELLED {
				job.stop(errCancelled)
			} else {
				w.lose(stop.Token)
			}
		}
	case *atlas.WorkResponse_UpdatesAnswer:
		for i, update := range w.answered(said.UpdatesAnswer.Id).GetUpdates().GetUpdates() {
			if said.UpdatesAnswer.Answers[i].Status == atlas.JobAnswer_LOST {
				w.lose(update.Token)
			}
		}
	case *atlas.WorkResponse_ReportsAnswer:
		for i, report := range w.answered(said.ReportsAnswer.Id).GetReports().GetReports() {
			w.reported(report, said.ReportsAnswer.Answers[i])
		}
	}
}

// answered takes a message off those that are to be sent again.
func (w *Worker) answered(id int64) *atlas.WorkRequest {
	message := w.pending[id]
	delete(w.pending, id)
	return message
}

func (w *Worker) reported(report *atlas.JobReport, answer *atlas.JobAnswer) {
	job := w.jobs[report.Token]
	if job != nil && answer.Status == atlas.JobAnswer_REFUSED {
		w.report(job, nil, &Failure{Reason: "RESULT_REFUSED", Message: answer.GetError().GetMessage(), Final: true})
		return
	}
	delete(w.jobs, report.Token)
	w.ready()
}

func (w *Worker) start(assignment *atlas.Assignment) {
	ctx, stop := context.WithCancelCause(context.Background())
	job := &Job{assignment, w, stop}
	w.jobs[assignment.Token] = job
	if w.draining {
		w.report(job, nil, errReleased)
		return
	}
	go func() {
		if left := assignment.GetTimeLeft(); left != nil {
			limited, cancel := context.WithTimeoutCause(ctx, left.AsDuration(), errTimedOut)
			defer cancel()
			ctx = limited
		}
		result, err := w.handlers[assignment.Type](ctx, job)
		stop(nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.jobs[assignment.Token] == job { // else it was lost
			w.report(job, result, err)
		}
	}()
}

// report hands in how a job ended.
func (w *Worker) report(job *Job, result any, err error) {
	report := &atlas.JobReport{Id: job.Id, Token: job.Token}
	var failure *Failure
	switch {
	case err == nil:
		text, err := json.Marshal(result)
		if err != nil {
			w.report(job, nil, &Failure{Message: err.Error(), Final: true})
			return
		}
		output := &atlas.JobSuccess_ResultJson{ResultJson: string(text)}
		report.Outcome = &atlas.JobReport_Success{Success: &atlas.JobSuccess{Output: output}}
	case errors.Is(err, errCancelled):
		report.Outcome = &atlas.JobReport_Cancelled{Cancelled: &atlas.JobCancelled{}}
	case errors.Is(err, errReleased):
		report.Outcome = &atlas.JobReport_Release{Release: &atlas.JobRelease{}}
	case errors.Is(err, errTimedOut):
		report.Outcome = &atlas.JobReport_TimedOut{TimedOut: &atlas.JobTimedOut{}}
	default:
		if !errors.As(err, &failure) {
			failure = &Failure{Message: fmt.Sprint(err)}
		}
		report.Outcome = &atlas.JobReport_Failure{Failure: &atlas.JobFailure{
			Reason: failure.Reason, Message: failure.Message, Final: failure.Final,
		}}
	}
	w.lastID++
	w.ask(&atlas.WorkRequest{Message: &atlas.WorkRequest_Reports{
		Reports: &atlas.WorkerReports{Id: w.lastID, Reports: []*atlas.JobReport{report}},
	}})
}

// Tell hands in progress, which may be nil, and log lines.
func (j *Job) Tell(progress *atlas.Progress, lines ...*atlas.LogEntry) {
	update := &atlas.JobUpdate{Id: j.Id, Token: j.Token, Progress: progress, Logs: lines}
	w := j.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastID++
	w.ask(&atlas.WorkRequest{Message: &atlas.WorkRequest_Updates{
		Updates: &atlas.WorkerUpdates{Id: w.lastID, Updates: []*atlas.JobUpdate{update}},
	}})
}

// ask says what is to be answered, again on the next stream if need be. It has the number `lastID`.
func (w *Worker) ask(message *atlas.WorkRequest) {
	w.pending[w.lastID] = message
	w.say(message)
}

func (w *Worker) say(message *atlas.WorkRequest) {
	if w.out == nil {
		return
	}
	select {
	case w.out <- message:
	default: // the stream is stuck, and about to be given up
	}
}

func (w *Worker) ready() {
	ready := &atlas.WorkerReady{Received: w.received}
	if !w.draining {
		ready.Limit = int32(max(0, w.slots-len(w.jobs)))
		for name := range w.handlers {
			ready.Room = append(ready.Room, &atlas.TypeRoom{Type: name, Slots: ready.Limit})
		}
	}
	w.say(&atlas.WorkRequest{Message: &atlas.WorkRequest_Ready{Ready: ready}})
}

// guard stops all jobs before the lease ends, if it could not be kept: others are about to get them.
func (w *Worker) guard() {
	for range time.Tick(50 * time.Millisecond) {
		w.mu.Lock()
		if time.Since(w.started) > w.kept+w.lease*9/10 {
			w.loseAll()
		}
		w.mu.Unlock()
	}
}

func (w *Worker) loseAll() {
	for token := range w.jobs {
		w.lose(token)
	}
	clear(w.pending)
}

// lose stops a job, about which no more is said.
func (w *Worker) lose(token string) {
	if job := w.jobs[token]; job != nil {
		delete(w.jobs, token)
		job.stop(errLost)
		w.ready()
	}
}

// drain returns when no job is left.
func (w *Worker) drain(patience time.Duration) {
	w.mu.Lock()
	w.draining = true
	w.ready()
	w.mu.Unlock()
	if w.empty(patience) {
		return
	}
	w.mu.Lock()
	for _, job := range w.jobs {
		job.stop(errReleased)
	}
	w.mu.Unlock()
	w.empty(goodbyeTime)
}

// empty waits up to so long until no job is in hand.
func (w *Worker) empty(patience time.Duration) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		left := len(w.jobs)
		w.mu.Unlock()
		if left == 0 {
			return true
		}
	}
	return false
}
