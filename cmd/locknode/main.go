package main

import (
	"io"
	"os"

	"google.golang.org/grpc/grpclog"
)

func main() {
	if code, hidden := hiddenMain(os.Args); hidden {
		os.Exit(code)
	}
	quietGRPC(os.LookupEnv)
	os.Exit(program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv, environ: os.Environ}.run(os.Args[1:]))
}

// quietGRPC stops grpc from writing to standard error: these lines bypass the log, and a
// stranger could cause any number of them. They are written if the variable asks for them.
func quietGRPC(lookup func(string) (string, bool)) {
	if level, ok := lookup("GRPC_GO_LOG_SEVERITY_LEVEL"); !ok || level == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}
