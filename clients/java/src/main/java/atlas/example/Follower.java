package atlas.example;

import atlas.v1.Job;
import atlas.v1.JobServiceGrpc;
import atlas.v1.Transition;
import atlas.v1.WatchJobRequest;
import atlas.v1.WatchJobResponse;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/** Follows one job to its end, over as many streams as it takes. */
final class Follower {
  private static final long FIRST_PAUSE = 100;
  private static final long LONGEST_PAUSE = 2_000;

  Job job = Job.getDefaultInstance();
  final List<Job.State> states = new ArrayList<>();
  final List<Long> versions = new ArrayList<>();
  boolean resumed;

  private final JobServiceGrpc.JobServiceBlockingStub jobs;
  private final String id;
  private String token = "";

  Follower(JobServiceGrpc.JobServiceBlockingStub jobs, String id) {
    this.jobs = jobs;
    this.id = id;
  }

  /** With {@code cutFirst} it breaks off the first stream on purpose, to show that the next one goes on exactly. */
  void run(boolean cutFirst) throws InterruptedException {
    for (long pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        if (stream(cutFirst)) {
          return;
        }
        cutFirst = false;
      } catch (StatusRuntimeException error) {
        if (!isCut(error.getStatus())) {
          throw error;
        }
        Thread.sleep(pause);
      }
      resumed = !token.isEmpty();
    }
  }

  /** Reads one stream. Whether it ended by itself, as the job did. */
  private boolean stream(boolean onlyFirst) {
    WatchJobRequest request = WatchJobRequest.newBuilder().setId(id).setResumeToken(token).build();
    // Closing the context cancels the stream that was opened in it.
    try (Context.CancellableContext context = Context.current().withCancellation()) {
      Context before = context.attach();
      try {
        Iterator<WatchJobResponse> messages = jobs.watchJob(request);
        while (messages.hasNext()) {
          take(messages.next());
          if (onlyFirst) {
            return false;
          }
        }
        return true;
      } finally {
        context.detach(before);
      }
    }
  }

  /** Netty tells a connection that was cut as UNAVAILABLE, or as UNKNOWN with a cause that no word of the server has. */
  private static boolean isCut(Status status) {
    return status.getCode() == Status.Code.UNAVAILABLE
        || (status.getCode() == Status.Code.UNKNOWN && status.getCause() instanceof IOException);
  }

  private void take(WatchJobResponse message) {
    token = message.getResumeToken();
    if (message.hasJob()) {
      job = message.getJob();
    }
    for (Transition step : message.getTransitionsList()) {
      states.add(step.getState());
      versions.add(step.getVersion());
    }
  }
}
