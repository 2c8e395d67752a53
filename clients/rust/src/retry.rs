use std::error::Error;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};

pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);

const TIMEOUT: Duration = Duration::from_secs(30);
const TRIES: u32 = 4;

/// Makes a unary call, with a deadline, and repeats it while the server is not there. With a request id, that is safe for
/// a submit too.
pub async fn retrying<Q, A, F>(message: Q, call: F) -> Result<A, Status>
where
    Q: Clone,
    F: AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
{
    let mut pause = FIRST_PAUSE;
    for tried in 1.. {
        let mut request = Request::new(message.clone());
        request.set_timeout(TIMEOUT);
        match call(request).await {
            Err(status) if is_unavailable(&status) && tried < TRIES => {
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(2 * pause);
            }
            answer => return answer.map(Response::into_inner),
        }
    }
    unreachable!()
}

/// Whether the server was not there, or the connection was cut: tonic tells that as Unknown, with a source that a status of
/// the server never has.
pub fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable || (status.code() == Code::Unknown && status.source().is_some())
}
