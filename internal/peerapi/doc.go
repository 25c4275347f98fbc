// Package peerapi is the protocol between the nodes of a cluster: the generated messages
// and the service of peers.proto. Clients do not use it. Errors are those of package apiv1.
package peerapi

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative peers.proto
