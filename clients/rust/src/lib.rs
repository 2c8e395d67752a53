//! The stubs of Atlas, and what a client adds to them: retries, and a watch that survives cuts.

mod follow;
mod retry;

pub use follow::Follower;
pub use retry::{FIRST_PAUSE, LONGEST_PAUSE, retrying};

/// The generated messages and stubs of `atlas.v1`.
pub mod v1 {
    tonic::include_proto!("atlas.v1");
}
