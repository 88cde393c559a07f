//! A browser, as far as a sign-in at a provider needs one: it keeps the one cookie, and follows what pages and providers say.

use std::collections::HashMap;
use std::sync::Mutex;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::idp::Idp;
use super::{Answer, TestApp};

/// The one cookie of sign-ins at others, as it begins.
pub const COOKIE: &str = "__Host-pearlgate-oauth=";
pub const EXCHANGE: &str = "/v1/auth/oauth/exchange";
pub const COMPLETE: &str = "/v1/auth/oauth/complete";
pub const IDENTITIES: &str = "/v1/me/identities";

/// Somebody's browser, which keeps the one cookie.
pub struct Browser<'a> {
    app: &'a TestApp,
    cookie: Mutex<String>,
}

impl<'a> Browser<'a> {
    pub fn new(app: &'a TestApp) -> Self {
        Self { app, cookie: Mutex::default() }
    }

    /// One that has this cookie already, as [`Browser::cookie`] gave it.
    pub fn with_cookie(app: &'a TestApp, cookie: &str) -> Self {
        Self { app, cookie: Mutex::new(cookie.to_owned()) }
    }

    /// The cookie as it is sent; nothing when there is none.
    pub fn cookie(&self) -> String {
        self.cookie.lock().unwrap().clone()
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let cookie = self.cookie();
        let request = if cookie.is_empty() { request } else { request.header("cookie", cookie) };
        let answer = self.app.send(request).await;
        let set = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        for cookie in set.filter(|cookie| cookie.starts_with(COOKIE)) {
            for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(cookie.contains(part), "{cookie}");
            }
            let pair = cookie.split(';').next().unwrap();
            let gone = pair == COOKIE || cookie.ends_with("Max-Age=0") || cookie.contains("Max-Age=0;");
            *self.cookie.lock().unwrap() = if gone { String::new() } else { pair.to_owned() };
        }
        answer
    }

    /// Follows a link: one of ours, in full or from the slash on.
    pub async fn get(&self, to: &str) -> Answer {
        let url = if to.starts_with('/') { format!("{}{to}", self.app.url) } else { to.to_owned() };
        self.send(self.app.client.get(url)).await
    }

    /// Begins to sign in.
    pub async fn start(&self, provider: &str, query: &str) -> Answer {
        let mark = if query.is_empty() { "" } else { "?" };
        self.get(&format!("/v1/auth/oauth/{provider}/start{mark}{query}")).await
    }

    /// Posts an answer of the pretend provider, as its page does.
    pub async fn post_back(&self, state: &str, who: &str) -> Answer {
        let body = serde_urlencoded::to_string([("state", state), ("code", who)]).unwrap();
        let path = "/v1/auth/oauth/dev/callback";
        let request = self.app.request(Method::POST, path).header("origin", self.app.url.as_str());
        self.send(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
    }

    /// Chooses one of dev mode's people on their page, and comes back.
    pub async fn choose(&self, page: &Answer, who: &str) -> Answer {
        let form = forms(&page.text).into_iter().find(|form| form["code"] == who).unwrap();
        self.post_back(&form["state"], &form["code"]).await
    }

    /// The whole way through the pretend provider, with a code in hand.
    pub async fn code_as(&self, who: &str) -> String {
        let page = self.start("dev", "").await;
        self.code_of(&self.choose(&page, who).await)
    }

    /// A sign-in as somebody of whom the pretend provider says nothing: what completes it.
    pub async fn completion(&self) -> String {
        let code = self.code_as("no_email").await;
        self.exchange(&code, json!({})).await.str("/completion_token")
    }

    /// Links the pretend provider's first person to the account of whoever holds the access token.
    pub async fn link_pretend(&self, access: &str) {
        let url = self.begin_link(access, "dev", json!({})).await.str("/url");
        let (_, next) = self.look(&url).await;
        let back = self.choose(&self.get(&next).await, "verified").await;
        assert_eq!((back.status, back.header("location")), (303, "/?linked=dev"), "{}", back.text);
    }

    /// Goes to the provider and says yes there; where that sends it.
    pub async fn ahead(&self, provider: &str, query: &str, idp: &Idp) -> String {
        let started = self.start(provider, query).await;
        assert_eq!(started.status, 302, "{provider}: {}", started.text);
        idp.authorize(started.header("location"))
    }

    /// Comes back from the provider.
    pub async fn callback(&self, to: &str) -> Answer {
        self.get(to).await
    }

    /// There and back, whatever comes of it.
    pub async fn arrive(&self, provider: &str, idp: &Idp) -> Answer {
        let back = self.ahead(provider, "", idp).await;
        self.callback(&back).await
    }

    /// The code with which it was sent on.
    pub fn code_of(&self, answer: &Answer) -> String {
        let location = answer.header("location");
        assert_eq!(answer.status, 303, "{}", answer.text);
        let code = parameter(location, "code").unwrap_or_else(|| panic!("no code in {location:?}"));
        assert!(code.starts_with("pgo_"), "{location}");
        code
    }

    /// Shows the code, as a page of the application does.
    pub async fn exchange(&self, code: &str, more: Value) -> Answer {
        let mut body = json!({ "code": code });
        for (name, value) in more.as_object().unwrap() {
            body[name.as_str()] = value.clone();
        }
        let request = self.app.request(Method::POST, EXCHANGE).header("origin", self.app.url.as_str());
        self.send(request.json(&body)).await
    }

    /// There and back, with a code in hand.
    pub async fn code(&self, provider: &str, idp: &Idp) -> String {
        let arrived = self.arrive(provider, idp).await;
        self.code_of(&arrived)
    }

    /// The whole way through a provider, whatever the last step answers.
    pub async fn enter(&self, provider: &str, idp: &Idp) -> Answer {
        let code = self.code(provider, idp).await;
        self.exchange(&code, json!({})).await
    }

    /// The whole way through the provider `idp`.
    pub async fn sign_in(&self, idp: &Idp) -> Answer {
        self.enter("idp", idp).await
    }

    /// Begins to link an identity to the account of whoever holds the access token.
    pub async fn begin_link(&self, access: &str, provider: &str, body: Value) -> Answer {
        let path = format!("{IDENTITIES}/{provider}/start");
        self.app.send(self.app.request(Method::POST, &path).bearer_auth(access).json(&body)).await
    }

    /// Opens the page that says what is about to be linked; where its link leads.
    pub async fn look(&self, url: &str) -> (Answer, String) {
        let page = self.get(url).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let mut confirmed = hrefs(&page.text).into_iter().filter(|href| href.contains("confirmed="));
        let next = confirmed.next().unwrap_or_else(|| panic!("no link in {}", page.text));
        assert_eq!(confirmed.next(), None, "{}", page.text);
        (page, next)
    }

    /// Links as far as the provider; where that sends it.
    pub async fn half_linked(&self, access: &str, provider: &str, idp: &Idp) -> String {
        let begun = self.begin_link(access, provider, json!({})).await;
        assert_eq!(begun.status, 200, "{}", begun.text);
        let (_, confirmed) = self.look(&begun.str("/url")).await;
        let started = self.get(&confirmed).await;
        assert_eq!(started.status, 302, "{}", started.text);
        idp.authorize(started.header("location"))
    }

    /// Links all the way, whatever comes of it.
    pub async fn link(&self, access: &str, provider: &str, idp: &Idp) -> Answer {
        let back = self.half_linked(access, provider, idp).await;
        self.callback(&back).await
    }
}

/// A parameter in an address's query.
pub fn parameter(address: &str, name: &str) -> Option<String> {
    let query = address.split_once('?')?.1.split('#').next()?;
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The address with another value for a parameter, or without it.
pub fn with_parameter(address: &str, name: &str, value: Option<&str>) -> String {
    let (path, query) = address.split_once('?').unwrap();
    let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
    pairs.retain(|(key, _)| key != name);
    pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    format!("{path}?{}", serde_urlencoded::to_string(pairs).unwrap())
}

fn unescaped(text: &str) -> String {
    let names =
        [("&#x2f;", "/"), ("&#x27;", "'"), ("&#39;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">")];
    names.iter().fold(text.to_owned(), |text, (name, sign)| text.replace(name, sign)).replace("&amp;", "&")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let tag = format!(" {}", tag.split('>').next()?.replace('\n', " "));
    let (_, value) = tag.split_once(&format!(" {name}=\""))?;
    Some(unescaped(value.split('"').next()?))
}

/// Where a page's links lead.
pub fn hrefs(page: &str) -> Vec<String> {
    page.split("<a ").skip(1).filter_map(|tag| attribute(tag, "href")).collect()
}

/// The fields of each of a page's forms.
pub fn forms(page: &str) -> Vec<HashMap<String, String>> {
    let field = |tag: &str| Some((attribute(tag, "name")?, attribute(tag, "value")?));
    let fields =
        |form: &str| form.split("</form").next().unwrap().split("<input").skip(1).filter_map(field).collect();
    page.split("<form").skip(1).map(fields).collect()
}
