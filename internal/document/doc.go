// Package document has the JSON documents that the HTTP API and the command line's
// "-o json" share: what both can be asked for is answered with the same fields, in the same
// form, so that a script may take either.
//
// The types say what there is; server and cmd/locknode fill them from the messages of the
// API and from the types of package client. What has a form of its own is filled by methods
// and functions here: durations, times, values, limits. docs/api.md describes the documents.
//
//   - document.go: the documents
//   - form.go: how durations, times, values and sizes are written
package document
