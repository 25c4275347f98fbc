// Package layout checks where things live: which packages may be part of what runs, that
// the linter sees it when one is that must not (imports_test.go), and what the public
// packages export (face_test.go).
package layout
