// What Ctrl-C, SIGTERM and SIGHUP do to a transfer. Signals that were ignored
// when the program began (nohup) stay ignored.
#ifndef PREDELLA_CLIENT_CLI_INTERRUPT_H_
#define PREDELLA_CLIENT_CLI_INTERRUPT_H_

namespace predella::cli {

// While it lives, such a signal removes a file and then ends the process as
// if it had not been caught. One at a time in a process.
class RemoveOnSignal {
 public:
  // `path` is read when the signal comes, and must outlive this.
  explicit RemoveOnSignal(const char* path);
  ~RemoveOnSignal();
  RemoveOnSignal(const RemoveOnSignal&) = delete;
  RemoveOnSignal& operator=(const RemoveOnSignal&) = delete;
};

// While it lives, the first such signal is only noted, so that what was begun
// on a server can be given up there; the next one ends the process. One at a
// time in a process, and not together with RemoveOnSignal.
class NoteSignal {
 public:
  NoteSignal();
  ~NoteSignal();
  NoteSignal(const NoteSignal&) = delete;
  NoteSignal& operator=(const NoteSignal&) = delete;

  // Whether a signal was noted.
  bool noted() const;
  // Blocks until `fd` can be read, or is at its end, or a signal is noted.
  void AwaitReadable(int fd) const;

 private:
  int wake_[2];
};

// Ends the process by the signal that NoteSignal noted last, so that a shell
// sees what happened; returns if there was none.
void RaiseNotedSignal();

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_INTERRUPT_H_
