/* Messages of a run for people: progress lines and warnings. */
#ifndef TRAIN_CONSOLE_H
#define TRAIN_CONSOLE_H

/* Functions may be null. A text is valid only during the call. */
struct train_report {
    void (*line)(void *context, const char *text);
    void (*warning)(void *context, const char *text);
    void *context;
};

void console_line(const struct train_report *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Passes on a warning, as a checkpoint_warning; `to` is a struct train_report. */
void console_warning(void *to, const char *message);

#endif
