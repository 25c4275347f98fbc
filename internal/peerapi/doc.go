// Package peerapi is what the nodes of a cluster ask each other: the generated messages
// and the service of peers.proto. Clients have no use for it; the errors are those of
// package apiv1.
package peerapi

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative peers.proto
