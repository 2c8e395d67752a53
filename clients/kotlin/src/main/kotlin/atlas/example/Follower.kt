package atlas.example

import atlas.v1.Job
import atlas.v1.JobServiceGrpcKt.JobServiceCoroutineStub
import atlas.v1.WatchJobRequest
import atlas.v1.WatchJobResponse
import io.grpc.Status
import io.grpc.StatusException
import java.io.IOException
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.take

private const val FIRST_PAUSE = 100L
private const val LONGEST_PAUSE = 2_000L

/** Follows one job to its end, over as many streams as it takes. */
internal class Follower(private val jobs: JobServiceCoroutineStub, private val id: String) {
    var job: Job = Job.getDefaultInstance()
        private set

    val states = mutableListOf<Job.State>()
    val versions = mutableListOf<Long>()
    var resumed = false
        private set

    private var token = ""

    /** With [cutFirst] it breaks off the first stream on purpose, to show that the next one goes on exactly. */
    suspend fun run(cutFirst: Boolean = false) {
        if (cutFirst && !survives { stream().take(1).collect(::read) }) delay(FIRST_PAUSE)
        var pause = FIRST_PAUSE
        while (true) {
            resumed = token.isNotEmpty()
            if (survives { stream().collect(::read) }) return
            delay(pause)
            pause = minOf(2 * pause, LONGEST_PAUSE)
        }
    }

    /** A stream that goes on after the last message that was read. */
    private fun stream() = jobs.watchJob(WatchJobRequest.newBuilder().setId(id).setResumeToken(token).build())

    /** Whether the stream ended by itself, as the job did, and not by a cut. */
    private suspend fun survives(stream: suspend () -> Unit): Boolean {
        try {
            stream()
            return true
        } catch (error: StatusException) {
            if (!isCut(error.status)) throw error
            return false
        }
    }

    private fun read(message: WatchJobResponse) {
        token = message.resumeToken
        if (message.hasJob()) job = message.job
        for (step in message.transitionsList) {
            states += step.state
            versions += step.version
        }
    }
}

/** Netty tells a connection that was cut as UNAVAILABLE, or as UNKNOWN with a cause that no word of the server has. */
private fun isCut(status: Status) =
    status.code == Status.Code.UNAVAILABLE || (status.code == Status.Code.UNKNOWN && status.cause is IOException)
