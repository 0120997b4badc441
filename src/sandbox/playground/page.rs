//! The files of the page. The program has them inside.

use actix_web::{
    Error, HttpRequest, HttpResponse,
    http::header::{self, ContentType},
    web,
};

use super::{
    Playground,
    admission::{Key, admit},
    without_line,
};

/// The page runs the function that this guide shows.
const FRONTEND_GUIDE: &str = include_str!("../../../docs/frontend.md");

macro_rules! files {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("page/", $name)))),*]
    };
}

const FILES: [(&str, &str); 18] = files! {
    "answer.js"
    "ask.js"
    "chain.js"
    "config.js"
    "dom.js"
    "events.js"
    "flow.js"
    "images.js"
    "limits.js"
    "main.js"
    "picture.js"
    "server.js"
    "style.css"
    "text.js"
    "toml.js"
    "upload.js"
    "who.js"
    "wire.js"
};

/// The folder of the files in URLs.
const FOLDER: &str = "/playground/page/";

pub(super) fn mount(config: &mut web::ServiceConfig) {
    // Another method may be for a route of the user's own config.
    let page = web::resource("/").guard(actix_web::guard::Get());
    config.service(page.route(web::get().to(html)));
    config.route("/playground/page/{name}", web::get().to(file));
}

async fn html(
    request: HttpRequest,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InUrl)?;
    let imgwire = playground.emulator.url();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {imgwire}; \
         img-src data: blob: {imgwire}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let response = HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(include_str!("page/index.html"));
    Ok(without_line(response))
}

async fn file(request: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Error> {
    admit(&request, Key::NotRequired)?;
    let text = match name.as_str() {
        "get-upload-token.js" => Some(token_function()),
        name => FILES
            .iter()
            .find_map(|(other, text)| (*other == name).then_some(*text)),
    };
    let Some(text) = text else {
        return Err(actix_web::error::ErrorNotFound(format!("{FOLDER}{name}")));
    };
    let kind = if name.ends_with(".css") {
        "text/css"
    } else {
        "text/javascript"
    };
    let response = HttpResponse::Ok()
        .content_type(format!("{kind}; charset=utf-8"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(text);
    Ok(without_line(response))
}

fn token_function() -> &'static str {
    let (_, rest) = FRONTEND_GUIDE.split_once("```js\n").unwrap_or_default();
    let (function, _) = rest.split_once("```").unwrap_or_default();
    function
}
