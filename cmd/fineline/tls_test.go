package main

import (
	"net"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fineline-vmm/fineline/migration/tlstest"
)

// cmdCerts makes a folder with two authorities and what they have signed for localhost: certs DIR.
func cmdCerts(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	ca, err := tlstest.NewAuthority(dir, "ca")
	ts.Check(err)
	other, err := tlstest.NewAuthority(dir, "ca2")
	ts.Check(err)
	for _, leaf := range []struct {
		by       *tlstest.Authority
		name     string
		template tlstest.Template
	}{
		{ca, "src", tlstest.Template{}},
		{ca, "dst", tlstest.Template{}},
		{ca, "expired", tlstest.Template{Expired: true}},
		{other, "alien", tlstest.Template{}},
	} {
		_, err := leaf.by.Issue(leaf.name, leaf.template)
		ts.Check(err)
	}
}

// cmdFreePort sets a variable to a TCP port that nobody listens on, now: free-port NAME.
func cmdFreePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}
