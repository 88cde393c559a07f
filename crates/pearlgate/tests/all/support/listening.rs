//! What the servers of tests share that others call: they listen, and somebody waits for what they hear.

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::PATIENCE;

/// Serves on a free port of this machine; its address, without a slash at the end.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// Waits until there is something, and looks whenever something has arrived; none in vain.
pub async fn wait<T>(arrived: &Notify, so: impl Fn() -> Option<T>) -> Option<T> {
    let come = async {
        loop {
            let next = arrived.notified();
            if let Some(found) = so() {
                return found;
            }
            next.await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.ok()
}
