// Package locktest tests programs that use Locknode.
package locktest
