//! An application that is told what happens, so that there is somebody to tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;

use crate::cli::Failure;

/// It takes everything, and counts.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) url: String,
    told: Arc<AtomicU64>,
}

impl Receiver {
    pub(super) async fn start() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::Other(format!("nobody can be told anything here: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let url = format!("http://{}/", listener.local_addr().map_err(failed)?);
        let told = Arc::new(AtomicU64::new(0));
        let counted = told.clone();
        let router = Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { StatusCode::NO_CONTENT }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, told })
    }

    /// How many messages it has taken.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}
