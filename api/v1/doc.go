// Package apiv1 is the Locknode protocol: the generated messages and services
// of locknode.proto, and the codes that its errors carry.
//
// Most programs use package client instead.
//
// Files:
//   - locknode.proto says what the messages and calls mean; the other code is generated from it.
//   - codes.go is the one table of codes: names, gRPC codes, HTTP statuses, exit codes.
//   - kinds.go is the one table of the kinds of operation.
//   - measure.go estimates the size of an operation, and finds text that cannot be sent.
//   - sessions.go hashes a session's ID, for all but its client.
package apiv1

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative locknode.proto
