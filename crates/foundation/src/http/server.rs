//! The listener: HTTP/1.1, deadlines on every phase, caps on connections and headers, a stop that finishes what it
//! began.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use super::Proxies;

/// From the first byte of a request to the end of its headers, and between two requests.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what we write. There is no such limit for what it writes: headers and bodies
/// have their own deadlines, and whoever only listens has nothing to say.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a stop still accepts, and how long it then waits for the first bytes of what it accepted.
const LAST_CALL: Duration = Duration::from_millis(200);
const FIRST_BYTE: Duration = Duration::from_millis(50);
const MAX_HEADERS: usize = 64;
/// Request line and headers, in bytes. (hyper's smallest buffer is 8 KiB.)
const MAX_HEAD: usize = 16 * 1024;

/// How much the listener takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address that is neither a declared proxy nor this machine.
    pub per_address: usize,
    /// The declared proxies.
    pub proxies: Proxies,
    /// How long a stop waits for requests that run.
    pub drain: Duration,
}

/// The other end of the connection that a request came in on, and ours.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Theirs.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// Serves `app` until `stop` completes, then finishes what runs.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let counts = Counts::default();
    tokio::pin!(stop);
    loop {
        // A place first: when all are taken, the kernel's queue holds the next ones back.
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = &mut stop => break,
        };
        let Ok(place) = place else { break };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => accept(socket, &app, &limits, &counts, place, &graceful),
                // Out of file descriptors or the like: wait a little instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            () = &mut stop => break,
        }
    }
    // Whoever connected before the stop is served: their connections wait in the kernel's queue. One fixed end,
    // or whoever keeps knocking keeps the door open.
    let last_call = tokio::time::sleep(LAST_CALL);
    tokio::pin!(last_call);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (Ok((socket, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else { break };
                accept(socket, &app, &limits, &counts, place, &graceful);
            }
            () = &mut last_call => break,
        }
    }
    drop(listener);
    // A connection whose first byte has not been read yet would be closed unanswered.
    tokio::time::sleep(FIRST_BYTE).await;
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still running when the time to stop was over");
    }
}

fn accept(
    socket: TcpStream,
    app: &Router,
    limits: &Limits,
    counts: &Counts,
    place: OwnedSemaphorePermit,
    graceful: &GracefulShutdown,
) {
    let (Ok(remote), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else { return };
    let exempt =
        remote.ip().to_canonical().is_loopback() || limits.proxies.contains(remote.ip().to_canonical());
    let Some(counted) =
        counts.enter(remote.ip().to_canonical(), if exempt { usize::MAX } else { limits.per_address })
    else {
        metrics::counter!("http_connections_refused_total").increment(1);
        return;
    };
    let _ = socket.set_nodelay(true);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(SILENCE));
    let app = app.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer { remote, local });
        app.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(socket)), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // A client that breaks off or stays silent is not our failure.
        let _ = connection.await;
        drop((place, counted));
    });
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Counted(Counts, IpAddr);

impl Counts {
    fn enter(&self, address: IpAddr, most: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), address))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}
