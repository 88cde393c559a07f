//! Which request something is done for, so that it can be found again: here in the log, and at whoever is asked on its behalf.

use std::future::Future;

tokio::task_local! {
    static REQUEST: [u8; 16];
}

/// Does something on behalf of a request.
pub async fn on_behalf_of<T>(request: [u8; 16], work: impl Future<Output = T>) -> T {
    REQUEST.scope(request, work).await
}

/// The request that is worked for now; none in what the server does by itself.
pub fn request() -> Option<[u8; 16]> {
    REQUEST.try_with(|request| *request).ok()
}
