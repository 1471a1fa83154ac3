package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/wsnode/internal/produce"
)

// parse reads a command line as main does, with nothing from the test's own environment.
func parse(t *testing.T, environ []string, args ...string) (*program, error) {
	t.Helper()
	var p program
	_, err := options.Parse(description(), &p, args, options.Env{Environ: environ})
	return &p, err
}

func TestSettingsReachTheNode(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := parse(t, []string{"POINTSMAN_KAFKA=a:1,b:2", "POINTSMAN_RING=64MiB"},
		"--topic=t", "--link-token-file="+token, "--scan-rate=0", "--linger=0", "--drain-timeout=7s", "--partitioner=crc32")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := p.Serve.config(nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Topic != "t" || len(cfg.Kafka) != 2 || cfg.Kafka[1] != "b:2" || cfg.Ring != 64<<20 || cfg.LinkToken != "secret" ||
		cfg.ScanRate >= 0 || cfg.Linger >= 0 || cfg.DrainTimeout != 7*time.Second || cfg.Partitioner != "crc32" || cfg.Admin != "127.0.0.1:9081" {
		t.Errorf("got %+v", cfg)
	}
}

func TestBadOptionsEndWithCode2AndSayWhat(t *testing.T) {
	for _, tc := range []struct {
		args []string
		word string
	}{
		{nil, "--topic is needed"},
		{[]string{"--topic=t", "--nonsense"}, "nonsense"},
		{[]string{"--topic=t", "--partitioner=java"}, "partitioner"},
		{[]string{"--topic=t", "--ring=lots"}, "size"},
		{[]string{"--topic=t", "--ring=0"}, "--ring must be at least 1MiB"},
		{[]string{"--topic=t", "--ring=1023KiB"}, "--ring must be at least 1MiB"},
		{[]string{"--topic=t", "--fetch-pace=1s"}, "--fetch-pace must be from 0 to 100ms"},
		{[]string{"--topic=t", "--linger=-1s"}, "--linger"},
		{[]string{"--topic=t", "--group-session-timeout=100ms"}, "--group-session-timeout must be at least 1s"},
		{[]string{"--topic=t", "--group-session-timeout=0s"}, "--group-session-timeout must be more than 0"},
		{[]string{"--topic=t", "--etcd-lease=1s"}, "--etcd-lease"},
		{[]string{"--topic=t", "--drain-timeout=0s"}, "--drain-timeout"},
		{[]string{"--topic=t", "--link-buffer=1KiB"}, "--link-buffer"},
		{[]string{"--topic=t", "--replay-limit=-1"}, "--replay-limit"},
		{[]string{"--topic=t", "--link-token-file=/nowhere/token"}, "--link-token-file"},
		{[]string{"--topic=t", "--kafka-ca-file=x"}, "TLS is off"},
		{[]string{"--topic=t", "--kafka-user=x"}, "--kafka-sasl-mechanism"},
		{[]string{"--topic=t", "--tls-client-ca-file=x"}, "--tls-cert-file"},
		{[]string{"--topic=t", "--id=a/b"}, "node id"},
		{[]string{"--topic=t", "--advertise=nonsense"}, "advertised"},
		{[]string{"produce", "--topic=t", "value"}, "--key"},
		{[]string{"produce", "--topic=t", "--key=k", "--header=x", "value"}, "--header"},
		{[]string{"produce", "--topic=t", "--key=k", "--tombstone", ""}, "a tombstone has no value"},
	} {
		var stdout, stderr bytes.Buffer
		code := options.Run(context.Background(), description(), &program{}, tc.args,
			options.Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
		if code != options.ExitUsage || !strings.Contains(stderr.String(), tc.word) {
			t.Errorf("%q: exit code %d, %q; want 2 and %q", tc.args, code, stderr.String(), tc.word)
		}
	}
}

func TestHelpAndVersionEndWell(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"produce", "--help"}, {"--version"}, {"version"}} {
		var stdout, stderr bytes.Buffer
		code := options.Run(context.Background(), description(), &program{}, args, options.Env{Stdout: &stdout, Stderr: &stderr})
		if code != options.ExitOK || stdout.Len() == 0 || stderr.Len() != 0 {
			t.Errorf("%q: exit code %d, %d bytes of output, stderr %q", args, code, stdout.Len(), stderr.String())
		}
	}
}

func TestAnEmptyValueIsNotAnAbsentOne(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{""}, `k=""`},
		{[]string{"v"}, `k="v"`},
		{nil, `k="from stdin"`},
		{[]string{"--tombstone"}, `k=null`},
	} {
		p, err := parse(t, nil, append([]string{"produce", "--topic=t", "--key=k"}, tc.args...)...)
		if err != nil {
			t.Errorf("%q: %v", tc.args, err)
			continue
		}
		var got []string
		err = p.Produce.write(strings.NewReader("from stdin\n"), func(r produce.Record) error {
			value := "null"
			if r.Value != nil {
				value = strconv.Quote(string(r.Value))
			}
			got = append(got, string(r.Key)+"="+value)
			return nil
		})
		if err != nil || len(got) != 1 || got[0] != tc.want {
			t.Errorf("%q: got %q, %v; want %q", tc.args, got, err, tc.want)
		}
	}
}

func TestLinesBecomeRecords(t *testing.T) {
	p := produceCmd{Delimiter: "\t"}
	var got []string
	err := p.lines(strings.NewReader("a\t1\nb\t\n"), func(r produce.Record) error {
		got = append(got, string(r.Key)+"="+string(r.Value))
		if r.Value == nil {
			t.Error("an empty value became a tombstone")
		}
		return nil
	})
	if err != nil || len(got) != 2 || got[0] != "a=1" || got[1] != "b=" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := p.lines(strings.NewReader("nothing"), nil); err == nil {
		t.Error("a line without a delimiter was taken")
	}
}
