//! What mail providers tell, over HTTP.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use foundation::http::read_body;
use foundation::kernel::Problem;
use foundation::limits::Taken;
use foundation::mail::NotHeard;

use crate::app::App;
use crate::errors;
use crate::limits::{self, PROOF_NETWORK};
use crate::router::From;

/// Providers tell of many mails at a time.
const MOST: usize = 1024 * 1024;

/// What a mail provider tells
///
/// For the providers in mail.chain alone: bounces and complaints, proven as each of them proves it. An address at which nobody
/// can be reached is left alone, and its person sees that in `GET /v1/me`.
#[utoipa::path(post, path = "/v1/hooks/mail/{provider}", tag = "server",
    params(("provider" = String, Path, description = "its name in mail.chain")),
    request_body(content = String, description = "as the provider sends it", content_type = "application/json"),
    responses((status = 204, description = "Heard, now or before"),
        (status = "4XX", body = crate::openapi::ProblemDocument), (status = 503, body = crate::openapi::ProblemDocument)))]
pub async fn hear(
    State(app): State<App>,
    Path(provider): Path<String>,
    From(client): From,
    request: Request,
) -> Result<StatusCode, Problem> {
    let headers = request.headers().clone();
    let body = read_body(request, MOST).await?;
    match app.postman.hear(&provider, &headers, &body).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(NotHeard::Nobody) => Err(Problem::not_found()),
        Err(unproven @ (NotHeard::Forged(_) | NotHeard::Away(_))) => {
            // Whoever cannot prove it fills no log.
            let network = client.network().to_string();
            let taken = app.limits.take(PROOF_NETWORK.name, network.as_bytes()).await;
            if let Some(taken) = taken.map_err(|e| e.to_problem())?.filter(Taken::refused) {
                return Err(limits::too_many(&taken));
            }
            metrics::counter!("mail_events_unproven_total").increment(1);
            tracing::warn!(provider, why = %unproven, "an event of a mail provider was not believed");
            if matches!(unproven, NotHeard::Away(_)) {
                return Err(errors::problem("dependency_unavailable"));
            }
            Err(errors::problem("token_invalid")
                .detail("It is not proven that the provider sent this. The log says what is missing."))
        }
        Err(NotHeard::Database(error)) => Err(error.to_problem()),
    }
}
