// Package fuzz has what fuzz targets of several packages need. Only tests
// import it.
//
// Files: fuzz.go watches time and memory of an execution; conn.go is a connection in memory;
// damage.go damages bytes.
package fuzz
