/* Import an image as a template, follow the job, and clone a volume of the template.
 *
 *     import-and-clone IMAGE TEMPLATE VOLUME
 *
 * The types beginning with Mvirt are what gdbus-codegen makes of the interfaces' XML (Makefile). The
 * file is opened here and its descriptor passed, so that the service reads nothing that this user
 * may not. The bus is the system bus, or $DBUS_SYSTEM_BUS_ADDRESS.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <gio/gunixfdlist.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mvirt-zfs.h"

#define SERVICE "org.mvirt.Zfs1"
#define ROOT "/org/mvirt/Zfs1"
#define NO_OPTIONS g_variant_new("a{sv}", NULL)

static GMainLoop *loop;
static gboolean succeeded;

/* "Progress" is told at most four times a second; GLib has put it into the proxy already. */
static void on_progress(MvirtJob *job, GParamSpec *property, gpointer data)
{
    (void)property, (void)data;
    printf("%s %.0f %%\n", mvirt_job_get_phase(job), 100 * mvirt_job_get_progress(job));
}

static void on_completed(MvirtJob *job, const char *result, const char *error_name,
                         const char *message, gpointer data)
{
    (void)job, (void)data;
    succeeded = strcmp(result, "done") == 0;
    if (!succeeded)
        fprintf(stderr, "%s: %s\n", error_name, message);
    g_main_loop_quit(loop);
}

/* The path of the job that imports the open file, NULL with an error set. */
static char *start_import(MvirtManager *manager, const char *name, int fd, GError **error)
{
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new();
    char *job = NULL;

    int index = g_unix_fd_list_append(fds, fd, error);
    if (index < 0)
        return NULL;
    if (!mvirt_manager_call_import_template_from_fd_sync(
            manager, name, g_variant_new_handle(index), NO_OPTIONS,
            G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1, fds, &job, NULL, NULL, error))
        return NULL;
    return job;
}

/* Whether the job ended well. */
static gboolean follow(GDBusConnection *bus, const char *path, GError **error)
{
    /* GLib subscribes first and reads the properties then, so nothing is missed in between. */
    g_autoptr(MvirtJob) job = mvirt_job_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, SERVICE, path,
                                                       NULL, error);
    if (job == NULL)
        return FALSE;
    g_signal_connect(job, "notify::progress", G_CALLBACK(on_progress), NULL);
    g_signal_connect(job, "completed", G_CALLBACK(on_completed), NULL);

    const char *state = mvirt_job_get_state(job);
    if (strcmp(state, "pending") == 0 || strcmp(state, "running") == 0)
        g_main_loop_run(loop);
    else /* it has ended before the proxy was there */
        on_completed(job, state, mvirt_job_get_error_name(job), mvirt_job_get_error_message(job),
                     NULL);
    return succeeded;
}

static gboolean clone_volume(GDBusConnection *bus, MvirtManager *manager, const char *template_name,
                             const char *name, GError **error)
{
    g_autofree char *template_path = NULL, *volume_path = NULL;
    g_autoptr(MvirtTemplate) template = NULL;
    g_autoptr(MvirtVolume) volume = NULL;

    if (!mvirt_manager_call_get_template_sync(manager, template_name, G_DBUS_CALL_FLAGS_NONE, -1,
                                              &template_path, NULL, error))
        return FALSE;
    template = mvirt_template_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, SERVICE, template_path,
                                             NULL, error);
    if (template == NULL ||
        !mvirt_template_call_clone_sync(template, name, NO_OPTIONS,
                                        G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1,
                                        &volume_path, NULL, error))
        return FALSE;
    volume = mvirt_volume_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, SERVICE, volume_path, NULL,
                                         error);
    if (volume == NULL)
        return FALSE;
    printf("%s is %" G_GUINT64_FORMAT " bytes at %s\n", mvirt_volume_get_name(volume),
           mvirt_volume_get_size_bytes(volume), mvirt_volume_get_device(volume));
    return TRUE;
}

static gboolean run(const char *template_name, const char *name, int fd, GError **error)
{
    g_autofree char *job = NULL;
    g_autoptr(MvirtManager) manager = NULL;
    g_autoptr(GDBusConnection) bus = g_bus_get_sync(G_BUS_TYPE_SYSTEM, NULL, error);

    if (bus == NULL)
        return FALSE;
    manager = mvirt_manager_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, SERVICE, ROOT, NULL,
                                           error);
    if (manager == NULL)
        return FALSE;
    job = start_import(manager, template_name, fd, error);
    return job != NULL && follow(bus, job, error) &&
           clone_volume(bus, manager, template_name, name, error);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    if (argc != 4) {
        fprintf(stderr, "usage: %s IMAGE TEMPLATE VOLUME\n", argv[0]);
        return 2;
    }
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    loop = g_main_loop_new(NULL, FALSE);
    gboolean ok = run(argv[2], argv[3], fd, &error);
    close(fd);
    g_main_loop_unref(loop);
    if (error != NULL) {
        g_autofree char *name = g_dbus_error_get_remote_error(error);
        g_dbus_error_strip_remote_error(error);
        fprintf(stderr, "%s: %s\n", name ? name : "error", error->message);
    }
    return ok ? 0 : 1;
}
