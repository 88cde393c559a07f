//! The API's own description, held against every answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, OnceLock};

use reqwest::Method;
use serde_json::{Value, json};

use super::Answer;

pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, jsonschema::Validator>>,
}

static CONTRACT: OnceLock<Contract> = OnceLock::new();
static CALLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

pub fn contract(url: &str) -> &'static Contract {
    CONTRACT.get_or_init(|| Contract {
        document: pearlgate::openapi::document(url),
        validators: Mutex::default(),
    })
}

/// The calls that tests have made so far, as `POST /v1/auth/login 200`.
pub fn called() -> BTreeSet<String> {
    CALLED.lock().unwrap().clone()
}

impl Contract {
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let Some(path) = self.template(path) else { return };
        let operation = &self.document["paths"][path][method.as_str().to_lowercase()];
        if operation.is_null() {
            return;
        }
        CALLED.lock().unwrap().insert(format!("{method} {path} {}", answer.status));
        let status = answer.status.to_string();
        let class = format!("{}XX", &status[..1]);
        let responses = &operation["responses"];
        let response =
            [&status, &class].into_iter().map(|key| &responses[key]).find(|found| !found.is_null());
        // Anything may fail for reasons that no call lists one by one.
        let problem = json!({ "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/ProblemDocument" } } } });
        let response = response.unwrap_or_else(|| {
            assert!(
                answer.status >= 400,
                "{method} {path} answered {status}, which its description does not have"
            );
            &problem
        });
        let Some(content) = response["content"].as_object() else {
            assert_eq!(
                answer.text, "",
                "{method} {path} {status} has a body that its description does not have"
            );
            return;
        };
        let kind = answer.header("content-type").split(';').next().unwrap().to_owned();
        // A refusal is a page for a browser that asks for one.
        if kind == "text/html" && (answer.status >= 400 || content.contains_key(&kind)) {
            return;
        }
        let schema = content.get(&kind).unwrap_or_else(|| {
            panic!("{method} {path} {status} is {kind}, described are {:?}", content.keys())
        });
        self.validate(&format!("{method} {path} {status}"), &schema["schema"], &answer.json);
    }

    /// The described path that a request's path is one of.
    fn template(&self, path: &str) -> Option<&str> {
        let paths = self.document["paths"].as_object().unwrap();
        if let Some((exact, _)) = paths.get_key_value(path) {
            return Some(exact);
        }
        let fits = |template: &str| {
            let (parts, wanted) = (path.split('/'), template.split('/'));
            template.contains('{')
                && parts.clone().count() == wanted.clone().count()
                && parts.zip(wanted).all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
        };
        paths.keys().map(String::as_str).find(|template| fits(template))
    }

    fn validate(&self, what: &str, schema: &Value, instance: &Value) {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(what.to_owned()).or_insert_with(|| {
            let mut schema = schema.clone();
            schema["components"] = self.document["components"].clone();
            jsonschema::validator_for(&schema).unwrap()
        });
        let wrong: Vec<String> =
            validator.iter_errors(instance).map(|e| format!("{e} at {}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{what} is not as described: {wrong:?}\n{instance}");
    }
}
