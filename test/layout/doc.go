// Package layout checks the structure of the module: which packages may be part of a node
// or a client, that the linter reports a forbidden import (imports_test.go), and what the
// public packages export (face_test.go).
package layout
