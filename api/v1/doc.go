// Package apiv1 is the Locknode protocol: the generated messages and services
// of locknode.proto, and the codes that its errors carry.
//
// Most programs want package client instead.
package apiv1

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative locknode.proto
