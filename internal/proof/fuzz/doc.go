// Package fuzz has helpers for the fuzz targets of several packages. Only tests
// import it.
//
// Files: fuzz.go watches time and memory of an execution; conn.go is a connection in memory;
// damage.go damages bytes.
package fuzz
