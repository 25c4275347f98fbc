// Package hclogs lets libraries that log through hclog, Raft and its stores, log through
// log/slog as the rest of the program does.
//
// Files: hclog.go is all of it.
package hclogs
