// Package document has the JSON documents that the HTTP API and the command line's
// "-o json" share: both answer with the same fields, in the same form, so that a script may
// use either.
//
// internal/server fills the types from the messages of the API, and cmd/locknode from the types
// of package client. Methods and functions of this package write what has a form of its own:
// durations, times, values, limits. docs/api.md describes the documents.
//
//   - document.go: the documents; rights.go: those about access tokens and policies
//   - form.go: how durations, times, values and sizes are written
package document
