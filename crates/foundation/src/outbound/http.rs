//! HTTP to other people's machines: no redirects, a cap on the answer, always through a [`Dependency`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::BodyExt;

use super::addresses::{Guarded, Private};
use super::guard::{CallError, Dependency};
use crate::kernel::{sha256, tls, trace};

/// A client for one dependency. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    dependency: Dependency,
    asking: Asking,
}

/// What a conversation asks with, within the budget of the one call that it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asking {
    client: reqwest::Client,
    cap: usize,
    /// Where it may go; none when whoever operates the server has named the address.
    private: Option<Private>,
    /// Whether whoever is asked learns for which request.
    traced: bool,
    /// Whether anything was asked in this conversation: one in which nothing was says nothing of the dependency.
    asked: Arc<AtomicBool>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole body, not larger than the cap.
    pub body: Bytes,
}

impl HttpClient {
    /// A client whose answers are at most `cap` bytes.
    ///
    /// # Errors
    /// In words, when the authorities in `ca_file` cannot be read.
    pub fn new(dependency: Dependency, ca_file: Option<&Path>, cap: usize) -> Result<Self, String> {
        Ok(Self { dependency, asking: Asking::new(ca_file, cap, None)? })
    }

    /// A client for addresses that somebody else may name: https and public ones, and private hosts by name.
    ///
    /// # Errors
    /// As [`HttpClient::new`].
    pub fn guarded(dependency: Dependency, cap: usize, private: Private) -> Result<Self, String> {
        Ok(Self { dependency, asking: Asking::new(None, cap, Some(private))? })
    }

    /// GET with some headers; `read` makes sense of the answer, within the call's budget, or says that there is none
    /// in it.
    ///
    /// # Errors
    /// [`CallError`]; 5xx, redirects and answers without sense count as away, 4xx as an answer.
    pub async fn get<T>(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        read: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, CallError> {
        self.converse(|asking| async move {
            read(asking.get(url, headers).await?).ok_or_else(|| CallError::Away(NO_SENSE.into()))
        })
        .await
    }

    /// Several questions that are one call: together they have its budget, and all of them answered is success.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn converse<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        talk: impl FnOnce(Asking) -> F,
    ) -> Result<T, CallError> {
        let asking = Asking { asked: Arc::default(), ..self.asking.clone() };
        let asked = asking.asked.clone();
        self.dependency.call_if(talk(asking), || asked.load(Ordering::SeqCst)).await
    }

    /// Whoever is asked learns nothing of the request that it is for.
    #[must_use]
    pub fn untraced(mut self) -> Self {
        self.asking.traced = false;
        self
    }

    /// The same client for another dependency: connections are shared, what is known of it is not.
    #[must_use]
    pub fn behind(&self, dependency: Dependency) -> Self {
        Self { dependency, asking: self.asking.clone() }
    }

    /// Whether this client would go to an address.
    ///
    /// # Errors
    /// In words, why not.
    pub fn admits(&self, url: &reqwest::Url) -> Result<(), CallError> {
        self.asking.admits(url)
    }

    /// How the dependency is.
    pub fn dependency(&self) -> &Dependency {
        &self.dependency
    }
}

/// How long a connection may take to be made, of the call's budget.
const CONNECT: Duration = Duration::from_secs(3);
/// After this a question that changes nothing is asked once more, when the connection broke.
const AGAIN: Duration = Duration::from_millis(100);
const NO_SENSE: &str = "its answer makes no sense";

impl Asking {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes an HTTP client")]
    fn new(ca_file: Option<&Path>, cap: usize, private: Option<Private>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("pearlgate/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client_config(ca_file)?);
        if let Some(private) = &private {
            builder = builder.dns_resolver(Arc::new(Guarded(private.clone())));
        }
        let client = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { client, cap, traced: private.is_some(), private, asked: Arc::default() })
    }

    /// Whether this client would go to an address: for one that somebody's browser is sent to.
    ///
    /// # Errors
    /// [`CallError::Away`] with the reason why not.
    pub fn admits(&self, url: &reqwest::Url) -> Result<(), CallError> {
        let Some(private) = &self.private else { return Ok(()) };
        private.admits(url).map_err(CallError::Away)
    }

    /// GET.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn get(&self, url: &str, headers: &[(&'static str, &str)]) -> Result<Answer, CallError> {
        match self.send(self.client.get(url), headers).await {
            // Asking changes nothing there, so it may be asked once more: connections break. Anything else is an answer, or
            // would take what is left of the budget.
            Err(Unsent::Broken(_)) => {
                tokio::time::sleep(AGAIN).await;
                self.send(self.client.get(url), headers).await.map_err(CallError::from)
            }
            other => other.map_err(CallError::from),
        }
    }

    /// POST of a form.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post_form(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        form: &[(&str, &str)],
    ) -> Result<Answer, CallError> {
        let body = form.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let body = body.collect::<Vec<_>>().join("&");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.post(url, &[&form, headers].concat(), body.into()).await
    }

    /// POST of anything; its type is among the headers.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, CallError> {
        // Whether it was done there is not known when the connection breaks: it is not asked again.
        Ok(self.send(self.client.post(url).body(body), headers).await?)
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, Unsent> {
        let away = |e: reqwest::Error| CallError::Away(in_words(&e.without_url()));
        let broken = |e: reqwest::Error| match e.is_timeout() {
            true => Unsent::Failed(away(e)),
            false => Unsent::Broken(away(e)),
        };
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        // Only whoever may be our operator's own: others learn nothing that they were not asked.
        let request = match trace::request().filter(|_| self.traced) {
            Some(id) => request.header("traceparent", traceparent(id)),
            None => request,
        };
        let request = request.build().map_err(away)?;
        self.admits(request.url())?;
        self.asked.store(true, Ordering::SeqCst);
        let response = self.client.execute(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_server_error() || status.is_redirection() {
            return Err(CallError::Away(format!("it answered {}", status.as_u16())).into());
        }
        let body = http_body_util::Limited::new(reqwest::Body::from(response), self.cap)
            .collect()
            .await
            .map_err(|_| CallError::Away("its answer broke off or is larger than allowed".into()))?;
        Ok(Answer { status: status.as_u16(), body: body.to_bytes() })
    }
}

/// Why a question has no answer.
enum Unsent {
    /// The connection could not be made, or broke before an answer began.
    Broken(CallError),
    /// Anything else.
    Failed(CallError),
}

impl From<CallError> for Unsent {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unsent> for CallError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Broken(error) | Unsent::Failed(error) => error,
        }
    }
}

/// For whoever is asked: the request it is for (W3C Trace Context). It is the id that our own answer and log have.
fn traceparent(request: [u8; 16]) -> String {
    let span = sha256(&request).truncated::<8>();
    format!("00-{}-{}-01", HEXLOWER.encode(&request), HEXLOWER.encode(&span))
}

/// An error with what it came from: "error sending request" alone helps nobody.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

fn escaped(text: &str) -> impl std::fmt::Display + '_ {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::kernel::{Clock, Entropy};
    use crate::outbound::{Dependencies, Settings};

    /// A server that answers every connection with `answer` and then, perhaps, keeps it open.
    async fn server(answer: Vec<u8>, hang: bool) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = socket.read(&mut [0; 1024]).await;
                    let _ = socket.write_all(&answer).await;
                    if hang {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        url
    }

    fn client(cap: usize) -> HttpClient {
        let all = Dependencies::new(Clock::System, Entropy::System);
        let timeout = Duration::from_millis(300);
        HttpClient::new(
            all.add(Settings { name: "t".into(), timeout, degraded: "", patience: None, at_a_time: 8 }),
            None,
            cap,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn what_is_strange_is_an_error_and_never_more_than_the_cap() {
        let ok = |body: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let answer = client(5).get(&server(ok("pearl"), false).await, &[], Some).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"pearl"[..]));
        let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\nxxxxxxxxxxxx".to_vec();
        let moved =
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
        let broken = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec();
        for (strange, hang) in [
            (ok("pearls"), false),
            (endless, true),
            (moved, false),
            (broken, false),
            (b"garbage".to_vec(), false),
            (Vec::new(), true),
        ] {
            let words = String::from_utf8_lossy(&strange).into_owned();
            assert!(client(5).get(&server(strange, hang).await, &[], Some).await.is_err(), "{words}");
        }
        assert!(matches!(client(5).get("http://127.0.0.1:1/", &[], Some).await, Err(CallError::Away(_))));
    }

    /// A server that hangs up on its first `breaks` connections, and says what the others sent; and how many there were.
    async fn breaking(breaks: usize) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let mut sent = [0; 2_048];
                let read = socket.read(&mut sent).await.unwrap_or(0);
                if number < breaks {
                    continue;
                }
                let sent = String::from_utf8_lossy(&sent[..read]).into_owned();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {read}\r\n\r\n{sent}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        (url, count)
    }

    #[tokio::test]
    async fn a_question_is_asked_once_more_when_the_connection_broke_and_what_may_have_been_done_is_not() {
        let (url, count) = breaking(1).await;
        assert!(client(4_096).get(&url, &[], Some).await.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 2);
        let (url, count) = breaking(5).await;
        assert!(client(4_096).get(&url, &[], Some).await.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 2, "once more, and not for ever");
        let (url, count) = breaking(1).await;
        let posted =
            client(4_096).converse(|asking| async move { asking.post_form(&url, &[], &[]).await }).await;
        assert!(posted.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn whoever_is_asked_learns_for_which_request() {
        let (url, _) = breaking(0).await;
        let heard = |answer: Answer| String::from_utf8(answer.body.to_vec()).ok();
        let all = Dependencies::new(Clock::System, Entropy::System);
        let settings = Settings {
            name: "t".into(),
            timeout: Duration::from_secs(2),
            degraded: "",
            patience: None,
            at_a_time: 8,
        };
        let own = Private { loopback: true, ..Private::default() };
        let one = HttpClient::guarded(all.add(settings), 4_096, own).unwrap();
        let alone = one.get(&url, &[], heard).await.unwrap();
        let stranger = client(4_096);
        let elsewhere = trace::on_behalf_of([0xab; 16], stranger.get(&url, &[], heard)).await.unwrap();
        assert!(!alone.contains("traceparent") && !elsewhere.contains("traceparent"), "{alone}{elsewhere}");
        let asked = trace::on_behalf_of([0xab; 16], one.get(&url, &[], heard)).await.unwrap();
        let line = asked.lines().find(|line| line.starts_with("traceparent: ")).unwrap();
        let parts: Vec<&str> = line.trim_start_matches("traceparent: ").split('-').collect();
        assert_eq!(
            (parts[0], parts[1], parts[2].len(), parts[3]),
            ("00", "ab".repeat(16).as_str(), 16, "01")
        );
    }

    #[tokio::test]
    async fn a_guarded_client_goes_nowhere_inside() {
        let (url, count) = breaking(0).await;
        let all = Dependencies::new(Clock::System, Entropy::System);
        let guarded = |private| {
            let settings = Settings {
                name: "g".into(),
                timeout: Duration::from_secs(2),
                degraded: "",
                patience: None,
                at_a_time: 8,
            };
            HttpClient::guarded(all.add(settings), 4_096, private).unwrap()
        };
        let by_name = url.replace("127.0.0.1", "localhost");
        for inside in [&url, &by_name, &url.replace("http:", "https:"), &by_name.replace("http:", "https:")] {
            assert!(guarded(Private::default()).get(inside, &[], Some).await.is_err(), "{inside}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 0, "nobody was asked");
        let own = Private { loopback: true, ..Private::default() };
        assert!(guarded(own.clone()).get(&by_name, &[], Some).await.is_ok());
        assert!(guarded(own).get(&url, &[], Some).await.is_ok());
    }
}
