use tonic::Status;
use tonic::transport::Channel;

use crate::retry::{FIRST_PAUSE, LONGEST_PAUSE, is_unavailable};
use crate::v1::job::State;
use crate::v1::job_service_client::JobServiceClient;
use crate::v1::{Job, WatchJobRequest};

/// Follows one job to its end, over as many streams as it takes.
pub struct Follower {
    pub job: Job,
    pub states: Vec<&'static str>,
    pub versions: Vec<i64>,
    pub resumed: bool,
    jobs: JobServiceClient<Channel>,
    id: String,
    token: String,
}

impl Follower {
    pub fn new(jobs: JobServiceClient<Channel>, id: impl Into<String>) -> Self {
        Self {
            job: Job::default(),
            states: Vec::new(),
            versions: Vec::new(),
            resumed: false,
            jobs,
            id: id.into(),
            token: String::new(),
        }
    }

    /// With `cut_first` it breaks off the first stream on purpose, to show that the next one goes on exactly.
    pub async fn run(&mut self, mut cut_first: bool) -> Result<(), Status> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.stream(cut_first).await {
                Ok(true) => return Ok(()),
                Ok(false) => cut_first = false,
                Err(status) if is_unavailable(&status) => {
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(2 * pause);
                }
                Err(status) => return Err(status),
            }
            self.resumed = !self.token.is_empty();
        }
    }

    /// Reads one stream. Whether it ended by itself, as the job did; a stream that is dropped is cancelled.
    async fn stream(&mut self, only_first: bool) -> Result<bool, Status> {
        let request = WatchJobRequest { id: self.id.clone(), resume_token: self.token.clone(), ..Default::default() };
        let mut stream = self.jobs.watch_job(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            self.token = message.resume_token;
            if let Some(job) = message.job {
                self.job = job;
            }
            for step in &message.transitions {
                self.states.push(State::as_str_name(&step.state()));
                self.versions.push(step.version);
            }
            if only_first {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
