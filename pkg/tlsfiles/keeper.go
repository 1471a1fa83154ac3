package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// lookEvery is how often handshakes look whether the files have changed.
const lookEvery = time.Second

// expiresSoon is when a certificate's end is worth a warning.
const expiresSoon = 7 * 24 * time.Hour

// material is what was read from the files at one time. It is immutable.
type material struct {
	cert *tls.Certificate
	pool *x509.CertPool // of the authorities that vouch for clients; nil without
}

// keeper holds what the files said last. It has no goroutine: handshakes look.
type keeper struct {
	// Static after open.
	log           *zap.Logger
	cert, key, ca string

	now atomic.Pointer[material]

	// A handshake that finds another one looking goes on with what there is: no handshake waits for a disk but one.
	looking sync.Mutex
	looked  time.Time // guarded by looking
	seen    stamps    // guarded by looking; of the files when they were read last
}

// stamp tells one state of a file from another. A file that is replaced has another inode, which the time of its
// content may not show.
type stamp struct {
	info os.FileInfo
}

func (s stamp) same(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return os.SameFile(s.info, t.info) && s.info.Size() == t.info.Size() && s.info.ModTime().Equal(t.info.ModTime())
}

type stamps [3]stamp

func open(log *zap.Logger, cert, key, ca string) (*keeper, error) {
	if log == nil {
		log = zap.NewNop()
	}
	k := &keeper{log: log.Named("tls"), cert: cert, key: key, ca: ca}
	k.looked, k.seen = time.Now(), k.stamps()
	m, err := k.read()
	if err != nil {
		return nil, err
	}
	k.now.Store(m)
	k.judge(m)
	return k, nil
}

func (k *keeper) read() (*material, error) {
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	m := &material{cert: &pair}
	if k.ca != "" {
		if m.pool, err = certPool(k.ca); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// current is what the files say, or said when they could be used last.
func (k *keeper) current() *material {
	if k.looking.TryLock() {
		defer k.looking.Unlock()
		if time.Since(k.looked) >= lookEvery {
			k.lookLocked()
		}
	}
	return k.now.Load()
}

func (k *keeper) lookLocked() {
	k.looked = time.Now()
	// The stamps are older than what is read: a change in between is found the next time.
	at := k.stamps()
	same := true
	for i := range at {
		same = same && at[i].same(k.seen[i])
	}
	if same {
		return
	}
	k.seen = at
	m, err := k.read()
	if err != nil {
		// Certificate and key are two files: between their writes they do not fit.
		k.log.Warn("changed certificate cannot be used, the earlier one stays in force", zap.String("file", k.cert), zap.Error(err))
		return
	}
	k.now.Store(m)
	k.log.Info("certificate read again", zap.String("file", k.cert), zap.Time("not_after", m.cert.Leaf.NotAfter))
	k.judge(m)
}

// judge warns of a certificate that others will refuse.
func (k *keeper) judge(m *material) {
	leaf := m.cert.Leaf
	at := []zap.Field{zap.String("file", k.cert), zap.Time("not_before", leaf.NotBefore), zap.Time("not_after", leaf.NotAfter)}
	switch left := time.Until(leaf.NotAfter); {
	case time.Until(leaf.NotBefore) > 0:
		k.log.Warn("certificate is not valid yet", at...)
	case left <= 0:
		k.log.Warn("certificate has expired", at...)
	case left < expiresSoon && left < leaf.NotAfter.Sub(leaf.NotBefore)/4:
		k.log.Warn("certificate expires soon", at...)
	}
}

func (k *keeper) stamps() (s stamps) {
	for i, file := range []string{k.cert, k.key, k.ca} {
		if file == "" {
			continue
		}
		if info, err := os.Stat(file); err == nil {
			s[i].info = info
		}
	}
	return s
}
