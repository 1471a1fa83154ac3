// Package logging builds the one logger that a program injects everywhere, from options that an operator
// sets.
//
// Levels say what an operator should conclude: debug is for someone who reads the code; info tells what the
// program did; warn means that something outside is wrong and the program copes; error means that the
// program could not do what it is there for.
package logging

import (
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Options are the settings; embed them into a program's options struct (package options).
type Options struct {
	LogLevel  string `default:"info" enum:"debug,info,warn,error" group:"Operators" help:"Least severe level that is logged."`
	LogFormat string `default:"json" enum:"json,console" group:"Operators" help:"How a log line looks: json for machines, console for people."`
}

// New returns a logger that writes one line per entry to w, and the level, which may be changed while the
// program runs (it is an http.Handler too: GET shows it, PUT {"level":"debug"} sets it). Writes to w are
// serialised. Nothing is sampled: constant messages are cheap, and a missing line costs more.
func New(o Options, w io.Writer) (*zap.Logger, zap.AtomicLevel, error) {
	level, err := zap.ParseAtomicLevel(orDefault(o.LogLevel, "info"))
	if err != nil {
		return nil, level, fmt.Errorf("log level %q: %w", o.LogLevel, err)
	}
	enc := zapcore.EncoderConfig{
		TimeKey:        "time",
		LevelKey:       "level",
		NameKey:        "logger",
		MessageKey:     "msg",
		StacktraceKey:  "stack",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeTime:     encodeTime,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	var encoder zapcore.Encoder
	switch orDefault(o.LogFormat, "json") {
	case "json":
		encoder = zapcore.NewJSONEncoder(enc)
	case "console":
		enc.ConsoleSeparator = " "
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(enc)
	default:
		return nil, level, fmt.Errorf("log format %q is not known; it is json or console", o.LogFormat)
	}
	core := zapcore.NewCore(encoder, &locked{w: w}, level)
	// A logger that cannot write has nobody to tell; zap's own complaints would go to the same place.
	return zap.New(core, zap.AddStacktrace(zapcore.DPanicLevel)), level, nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// encodeTime keeps milliseconds always, so that columns line up and lines of several processes sort as text.
func encodeTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// locked serialises writes: zap calls a core from many goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Sync does nothing: w is not buffered here, and syncing a terminal or a pipe fails on Linux.
func (l *locked) Sync() error { return nil }
