package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/tokenledger/tokenledger/projector"
)

// Options are the options of [Install].
type Options struct {
	Wanted
	// Size is the size of the snapshot, for Progress. Zero means unknown.
	Size int64
	// Progress, if set, is called about every MiB with the number of bytes
	// read, and Size.
	Progress func(done, total int64)
	// Reserve is the disk space that must stay free, as in [projector.Config].
	Reserve uint64
	// Logger receives warnings of Badger. Nil discards them.
	Logger *slog.Logger
}

// partialMark ends the name of an unfinished folder.
const partialMark = ".partial"

// Install creates the folder dir, which must not exist, from a snapshot. Even
// after a crash, the folder holds the whole index or does not exist. Install
// deletes the files that a crashed Install has left.
func Install(ctx context.Context, dir string, r io.Reader, o Options) (Header, error) {
	h, err := install(ctx, dir, r, o)
	if err != nil {
		return Header{}, fmt.Errorf("install snapshot: %w", err)
	}
	return h, nil
}

func install(ctx context.Context, dir string, r io.Reader, o Options) (h Header, err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return h, fmt.Errorf("folder %s: %w", dir, errors.Join(os.ErrExist, err))
	}
	partial := dir + partialMark
	if err := os.RemoveAll(partial); err != nil {
		return h, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	var b *projector.Builder
	err = Read(&progressReader{ctx: ctx, r: r, o: o}, o.Wanted, func(header Header) (err error) {
		h = header
		b, err = projector.NewBuilder(projector.Config{Dir: partial, Reserve: o.Reserve, Logger: o.Logger}, h.head())
		return err
	}, func(key, value []byte) error { return b.Add(key, value) })
	switch {
	case b == nil:
		return h, err
	case err != nil:
		return h, errors.Join(err, b.Abort())
	}
	// The signature is verified.
	if err := b.Finish(ctx); err != nil {
		return h, err
	}
	if err := ctx.Err(); err != nil {
		return h, err
	}
	// The folder is complete and synced.
	return h, projector.Move(partial, dir)
}

// progressReader calls Options.Progress, and stops when ctx ends.
type progressReader struct {
	ctx      context.Context
	r        io.Reader
	o        Options
	done     int64 // bytes read
	reported int64 // done in the last call of Progress
}

// progressEvery is the number of bytes between two calls of Progress.
const progressEvery = 1 << 20

func (c *progressReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.done += int64(n)
	if c.o.Progress != nil && (c.done-c.reported >= progressEvery || err != nil) {
		c.reported = c.done
		c.o.Progress(c.done, c.o.Size)
	}
	return n, err
}
