//! What a person is told when something does not work: RFC 9457 `application/problem+json` with a stable code.

use serde::Serialize;

/// One refused field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name as the request spells it; nested ones joined with dots.
    pub field: String,
    /// A stable code, such as `password_too_short`.
    pub code: &'static str,
    /// What is wrong, in words for a person.
    pub message: String,
}

impl FieldError {
    /// A refused field.
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

/// A refusal or failure on its way to a client. The HTTP layer adds `type` and `request_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status code.
    pub status: u16,
    /// The stable code an application switches on.
    pub code: &'static str,
    /// What happened, the same for every problem of this code.
    pub title: &'static str,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// The refused fields, empty when it is not about fields.
    pub fields: Vec<FieldError>,
    /// Seconds after which trying again makes sense; goes into `Retry-After` too.
    pub retry_after: Option<u64>,
    /// Further members of the document, such as `reason`.
    pub members: Vec<(&'static str, serde_json::Value)>,
    /// Further headers of the answer.
    pub headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// A problem with this status, code and title; the detail starts as the title.
    pub fn new(status: u16, code: &'static str, title: &'static str) -> Self {
        Self {
            status,
            code,
            title,
            detail: title.to_owned(),
            fields: Vec::new(),
            retry_after: None,
            members: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Says what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says after how many seconds to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a member of our own to the document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Adds headers to the answer.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// 422: the JSON is well formed, its content is not acceptable.
    pub fn invalid(fields: Vec<FieldError>) -> Self {
        let mut problem = Self::new(422, "validation_failed", "Some fields are not acceptable");
        problem.detail = match fields.as_slice() {
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("{} fields are not acceptable; see `fields`.", many.len()),
        };
        problem.fields = fields;
        problem
    }

    /// 400: the request cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed_request", "The request cannot be understood").detail(detail)
    }

    /// 404: nothing is there, or nothing that the caller may know of.
    pub fn not_found() -> Self {
        Self::new(404, "not_found", "There is nothing here")
            .detail("Check the address; the API lives under /v1 and is described at /openapi.json.")
    }

    /// 500: our fault. Says nothing else.
    pub fn internal() -> Self {
        Self::new(500, "internal", "Something went wrong on our side")
            .detail("The failure was recorded under this request id. Trying again may work.")
    }

    /// 503: a part that this request needs does not answer.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, "dependency_unavailable", "A part that this needs is away for the moment")
            .detail(detail)
            .retry_after(2)
    }
}
