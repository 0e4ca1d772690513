/* Words of a run for people: lines of progress, and warnings. */
#ifndef TRAIN_CONSOLE_H
#define TRAIN_CONSOLE_H

/* Functions may be null; what they are told ends with them. */
struct train_report {
    void (*line)(void *context, const char *text);
    void (*warning)(void *context, const char *text);
    void *context;
};

void console_line(const struct train_report *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `to` is a struct train_report: as checkpoint_warning. */
void console_warning(void *to, const char *message);

#endif
