//! The server's own pages: error codes and the API's reference.

#![expect(clippy::indexing_slicing, reason = "JSON indexed by name gives null, not a panic")]

use axum::extract::{Path, State};
use axum::response::Response;
use foundation::kernel::Problem;
use serde_json::{Value, json};

use crate::app::App;
use crate::pages::render;
use crate::{errors, openapi};

/// `GET /errors`
pub(crate) async fn error_index(State(app): State<App>) -> Result<Response, Problem> {
    render(&app, "pages/error_index.html", json!({ "codes": errors::all() }))
}

/// `GET /errors/{code}`: where a problem's `type` leads.
pub(crate) async fn error_code(
    State(app): State<App>,
    Path(code): Path<String>,
) -> Result<Response, Problem> {
    let entry = errors::find(&code).ok_or_else(Problem::not_found)?;
    render(&app, "pages/error_code.html", json!(entry))
}

/// `GET /docs`: the OpenAPI document for people.
pub(crate) async fn docs(State(app): State<App>) -> Result<Response, Problem> {
    let document = openapi::document(&app.settings.public_url);
    let info = &document["info"];
    let values = json!({ "title": info["title"], "version": info["version"], "groups": groups(&document) });
    render(&app, "pages/docs.html", values)
}

fn groups(document: &Value) -> Vec<Value> {
    let names = document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
    names.map(|name| json!({ "name": name, "calls": calls(document, name) })).collect()
}

fn calls(document: &Value, tag: &str) -> Vec<Value> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(m, o)| (path, m, o))
    });
    operations
        .filter(|(_, _, operation)| operation["tags"][0] == tag)
        .map(|(path, method, operation)| {
            let guard = if operation["security"].is_array() { "an access token" } else { "" };
            json!({
                "method": method.to_uppercase(), "path": path, "summary": operation["summary"].as_str().unwrap_or_default(),
                "description": operation["description"].as_str().unwrap_or_default(), "guard": guard,
                "request": schema(document, &operation["requestBody"]), "responses": responses(document, operation),
            })
        })
        .collect()
}

fn responses(document: &Value, operation: &Value) -> Vec<Value> {
    let responses = operation["responses"].as_object().into_iter().flatten();
    responses
        .map(|(status, response)| {
            let description = response["description"].as_str().unwrap_or_default();
            json!({ "status": status, "description": description, "schema": schema(document, response) })
        })
        .collect()
}

/// The schema of a body as indented JSON, its name resolved.
fn schema(document: &Value, body: &Value) -> String {
    let content = body["content"].as_object().and_then(|content| content.values().next());
    let Some(schema) = content.map(|content| &content["schema"]) else { return String::new() };
    let named = schema["$ref"].as_str().and_then(|name| document.pointer(name.trim_start_matches('#')));
    serde_json::to_string_pretty(named.unwrap_or(schema)).unwrap_or_default()
}
