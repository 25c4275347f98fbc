// Package leaks fails the tests of a package that leave goroutines behind. It is for packages
// whose tests open nodes: goleak alone waits for half a second.
//
// Files: leaks.go has all of it.
package leaks
