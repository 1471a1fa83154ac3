package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/produce"
)

// maxLine bounds a line of standard input; it is the link's limit of a record.
const maxLine = 100 << 20

// produceCmd writes records.
type produceCmd struct {
	kafkaOptions `embed:""`

	Key       string   `placeholder:"TEXT" xor:"key" help:"The record's key."`
	NoKey     bool     `xor:"key" help:"Write records without a key; no client can get them."`
	Tombstone bool     `help:"Write a tombstone (a null value)."`
	Header    []string `sep:"none" placeholder:"NAME=TEXT" help:"A header; may be given several times."`
	Delimiter string   `placeholder:"TEXT" help:"Lines of standard input are key, delimiter, value."`
	Value     *string  `arg:"" optional:"" help:"The record's value. Without it each line of standard input is one record."`
}

// Run writes one record, or one for each line.
func (p *produceCmd) Run(ctx context.Context, env options.Env) (err error) {
	headers, err := p.headers()
	if err != nil {
		return err
	}
	if p.Key == "" && !p.NoKey && p.Delimiter == "" {
		return options.Usagef("say which key the record has: --key, --delimiter for lines that begin with one, or --no-key")
	}
	if p.Tombstone && p.Value != nil {
		return options.Usagef("a tombstone has no value")
	}
	conf, sasl, err := p.security(nil)
	if err != nil {
		return err
	}
	to, err := produce.Open(ctx, produce.Config{
		Brokers: p.Kafka, Topic: p.Topic, Partitioner: p.Partitioner, TLS: conf, SASL: kafka.SASL(sasl),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	send := func(r produce.Record) error {
		r.Headers = headers
		partition, offset, err := to.Send(ctx, r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "partition %d offset %d\n", partition, offset)
		return err
	}
	return p.write(env.Stdin, send)
}

// write sends the record that the arguments give, or one for each line of in.
func (p *produceCmd) write(in io.Reader, send func(produce.Record) error) error {
	switch {
	case p.Tombstone:
		return send(produce.Record{Key: p.key()})
	case p.Value != nil:
		return send(produce.Record{Key: p.key(), Value: []byte(*p.Value)}) // not nil, even if it is empty
	default:
		return p.lines(in, send)
	}
}

func (p *produceCmd) lines(in io.Reader, send func(produce.Record) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		r := produce.Record{Key: p.key(), Value: bytes.Clone(lines.Bytes())}
		if p.Delimiter != "" {
			key, value, ok := bytes.Cut(r.Value, []byte(p.Delimiter))
			if !ok {
				return fmt.Errorf("line %q has no %q", clip(r.Value), p.Delimiter)
			}
			r.Key, r.Value = key, value
		}
		if r.Value == nil {
			r.Value = []byte{}
		}
		if err := send(r); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

func clip(b []byte) []byte { return b[:min(len(b), 40)] }

func (p *produceCmd) key() []byte {
	if p.NoKey {
		return nil
	}
	return []byte(p.Key)
}

func (p *produceCmd) headers() ([]produce.Header, error) {
	var all []produce.Header
	for _, h := range p.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return nil, options.Usagef("--header %q is not NAME=TEXT", h)
		}
		all = append(all, produce.Header{Key: name, Value: []byte(value)})
	}
	return all, nil
}
